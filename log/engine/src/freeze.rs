//! The end of a log.

use std::{sync::Arc, time::Duration};

use signer_core::{Error, ErrorKind, Result};

use crate::{
    checkpoint::Checkpoint,
    format::Format,
    frontier::{Growth, View},
    recovery::{Found, recover},
    sequencer::LOSSES,
    signing::{CheckpointSigner, now_millis},
    storage::{Storage, Swap},
};

/// Closes a log for ever: everything durable is published, and the last checkpoint says that it is the last. A log in a folder
/// must not be open. A log of tree heads (RFC 6962) has no room for the line; whoever serves it has to know.
pub async fn freeze(
    storage: Arc<dyn Storage>,
    format: Format,
    mut signer: CheckpointSigner,
) -> Result<Checkpoint> {
    let tree_heads = signer.key().kind() == crate::NoteKind::TreeHead;
    for _ in 0..LOSSES {
        let Found { published, frontier, sealed } = recover(&storage, format, &mut signer, None).await?;
        // From here on nobody can stage anything more.
        if !sealed && storage.seal()? == Swap::Overtaken {
            continue;
        }
        if tree_heads || published.is_frozen() {
            storage.settle()?;
            return Ok(published.checkpoint);
        }
        let line = format!("{}{}", crate::log::FROZEN, unix_date(now_millis() / 1000));
        let (size, root) = (published.checkpoint.size, published.checkpoint.root);
        let note = signer.sign(size, root, vec![line.clone()], &[]).await?;
        let growth = Growth::default();
        let view = View { frontier: &frontier, growth: &growth, storage: &*storage };
        let note = signer.cosigned(note, size, &view).await?;
        if storage.publish(Some(published.note.as_bytes()), note.as_bytes())? == Swap::Done {
            storage.settle()?;
            return Ok(Checkpoint { extensions: vec![line], ..published.checkpoint });
        }
    }
    Err(Error::new(
        ErrorKind::Busy { retry_after: Duration::from_secs(1) },
        "other servers of this log are always first",
    )
    .next("stop them, and freeze the log again"))
}

/// A time as `date` writes it in UTC: `Fri Nov 27 01:35:05 UTC 2026`.
fn unix_date(seconds: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] =
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let (days, in_day) = (seconds / 86_400, seconds % 86_400);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let (mut year, mut left) = (1970, days);
    while left >= 365 + u64::from(leap(year)) {
        left -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 0;
    while left >= lengths[month] {
        left -= lengths[month];
        month += 1;
    }
    format!(
        "{} {} {:>2} {:02}:{:02}:{:02} UTC {year}",
        DAYS[(days % 7) as usize],
        MONTHS[month],
        left + 1,
        in_day / 3600,
        in_day / 60 % 60,
        in_day % 60
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates_are_those_of_date() {
        assert_eq!(super::unix_date(0), "Thu Jan  1 00:00:00 UTC 1970");
        assert_eq!(super::unix_date(951_782_400), "Tue Feb 29 00:00:00 UTC 2000");
        assert_eq!(super::unix_date(1_795_743_305), "Fri Nov 27 01:35:05 UTC 2026");
    }
}
