//! `signer audit follow`

use std::time::Duration;

use clap::Args;
use signerd_api::audit::Record;

use super::{filter::Filter, log::Which, row};
use crate::{
    context::{Context, print},
    failure::{Exit, Failure},
};

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(250);

/// Print records as they come
///
/// A record is seen when a checkpoint covers it: checkpoint_every of the audit table, a second if nothing is said. Ends with Ctrl-C.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer audit follow
  signer audit follow --denied
  signer audit follow --key 'hsm/*' --output json | jq .caller.user")]
pub(super) struct Follow {
    #[command(flatten)]
    which: Which,
    #[command(flatten)]
    filter: Filter,
    /// Begin with the last so many records
    #[arg(short = 'n', long, value_name = "COUNT", default_value_t = 10)]
    last: u64,
}

impl Follow {
    pub(super) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let log = self.which.open(context).await?;
        let mut at = log.size()?.saturating_sub(self.last);
        context.note("following; Ctrl-C ends it");
        loop {
            let size = log.size()?;
            if size < at {
                return Err(Failure::failed(signer_core::Error::new(
                    signer_core::ErrorKind::Denied,
                    format!("the log has shrunk from {at} records to {size}"),
                ))
                .next("it was put back to an older state: compare it with a copy"));
            }
            log.each(at, size, |_, text| {
                let record = Record::from_json(text)?;
                if self.filter.fits(&record, record.outcome.as_deref().unwrap_or_default()) {
                    if context.is_json() {
                        print(format_args!("{}\n", String::from_utf8_lossy(text)));
                    } else {
                        print(format_args!("{}\n", row::line(&record)));
                    }
                }
                Ok(())
            })?;
            at = size;
            tokio::time::sleep(INTERVAL).await;
        }
    }
}
