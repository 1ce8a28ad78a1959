//! A record as people read it.

use signerd_api::audit::{Caller, Record};

/// The columns of the table.
pub(super) const HEADINGS: [&str; 7] = ["#", "TIME", "CALLER", "OPERATION", "KEY", "WHAT", "OUTCOME"];

/// A record's cells. `outcome` is how it ended.
pub(super) fn cells(record: &Record<'_>, outcome: &str) -> [String; 7] {
    [
        record.sequence.to_string(),
        record.time.to_string(),
        record.caller.as_ref().map_or_else(|| "signerd".to_owned(), caller),
        record.operation.to_string(),
        record.key.as_deref().unwrap_or_default().to_owned(),
        what(record),
        outcome.to_owned(),
    ]
}

/// One line for a record that is printed alone.
pub(super) fn line(record: &Record<'_>) -> String {
    let of = record.of.map(|of| format!("(of #{of})")).unwrap_or_default();
    let cells = cells(record, &format!("{}{of}", outcome(record, None)));
    let cells: Vec<_> = cells.into_iter().filter(|cell| !cell.is_empty()).collect();
    cells.join("  ")
}

/// How it ended: as the record says, or the later one whose end that is.
pub(super) fn outcome(record: &Record<'_>, end: Option<&str>) -> String {
    if record.decision.as_deref() == Some("denied") {
        return "DENIED".to_owned();
    }
    match (record.outcome.as_deref(), end) {
        (_, Some(end)) => end.to_owned(),
        // Its answer may have left, and nothing says that it has not.
        (Some("begun"), None) if record.of.is_none() && is_withheld(&record.operation) => "done".to_owned(),
        (Some("begun"), None) => "begun".to_owned(),
        (Some(outcome), None) => match &record.error {
            Some(error) => format!("{outcome}: {error}"),
            None => outcome.to_owned(),
        },
        (None, None) => String::new(),
    }
}

/// Operations whose result leaves only when it is recorded: their records have no second one when all went well.
fn is_withheld(operation: &str) -> bool {
    ["sign", "attest"].contains(&operation)
}

fn caller(caller: &Caller<'_>) -> String {
    let user = match (&caller.user, caller.uid) {
        (Some(user), _) => user.to_string(),
        (None, Some(uid)) => format!("uid {uid}"),
        (None, None) => "?".to_owned(),
    };
    let program = caller.program.as_deref().map(|p| p.rsplit('/').next().unwrap_or(p));
    match (program, caller.pid) {
        (Some(program), Some(pid)) => format!("{user} {program}[{pid}]"),
        (None, Some(pid)) => format!("{user} [{pid}]"),
        _ => user,
    }
}

/// What was to be signed; what the daemon says of itself.
fn what(record: &Record<'_>) -> String {
    let mut parts = Vec::new();
    parts.extend(record.algorithm.as_deref().map(str::to_owned));
    // Enough to tell two apart; the whole is in the JSON form.
    parts.extend(record.digest.as_deref().map(|digest| digest.chars().take(23).collect()));
    parts.extend(record.content.as_deref().map(str::to_owned));
    parts.extend(record.config.as_deref().map(|hash| format!("configuration {hash:.23}")));
    parts.extend(record.refused.map(|n| format!("{n} requests were refused")));
    parts.extend(record.suppressed.map(|n| format!("and {n} denials that were not recorded")));
    parts.join(" ")
}
