//! `signer audit show`

use std::collections::HashMap;

use clap::Args;
use signerd_api::audit::Record;

use super::{filter::Filter, log::Which, row};
use crate::{
    context::{Context, print},
    failure::{Exit, Failure},
    table,
};

/// Show who used which key, when and for what
///
/// Nothing is verified: `signer audit check` does that. With --output json each record is printed as it is in the log, a
/// line each; in the table a record and the one that says how it ended are one line.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer audit show --last 20
  signer audit show --key 'hsm/release*' --since 7d
  signer audit show --denied --caller alice
  signer audit show --log /backup/audit --output json | jq -r 'select(.operation == \"sign\").digest'")]
pub(super) struct Show {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    filter: Filter,
    /// Only the last so many of them
    #[arg(short = 'n', long, value_name = "COUNT")]
    last: Option<usize>,
}

impl Show {
    pub(super) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let log = self.which.open(context).await?;
        let size = log.size()?;
        // How those ended that a later record tells of.
        let mut ends = HashMap::new();
        log.each(0, size, |_, text| {
            let record = Record::from_json(text)?;
            if let Some(of) = record.of {
                ends.insert(of, row::outcome(&record, None));
            }
            Ok(())
        })?;
        let mut found = Vec::new();
        log.each(0, size, |_, text| {
            let record = Record::from_json(text)?;
            let outcome = row::outcome(&record, ends.get(&record.sequence).map(String::as_str));
            let word = outcome.split(':').next().unwrap_or_default();
            if self.filter.fits(&record, word) {
                if context.is_json() {
                    found.push(Found::Text(text.to_vec()));
                } else if record.of.is_none() {
                    found.push(Found::Row(row::cells(&record, &outcome)));
                }
            }
            Ok(())
        })?;
        let skipped = found.len().saturating_sub(self.last.unwrap_or(usize::MAX));
        let mut rows = Vec::new();
        for one in found.into_iter().skip(skipped) {
            match one {
                Found::Text(text) => print(format_args!("{}\n", String::from_utf8_lossy(&text))),
                Found::Row(row) => rows.push(row),
            }
        }
        if !context.is_json() {
            print(table::layout(row::HEADINGS, &rows));
        }
        Ok(Exit::Done)
    }
}

enum Found {
    Text(Vec<u8>),
    Row([String; 7]),
}
