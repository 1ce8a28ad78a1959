//! Watches over the audit log: how it is, and whether it can be written again.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use signer_core::Error;

use super::{Audit, Event, lock};
use crate::state::Daemon;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(200);

/// Its name on the health service.
const NAME: &str = "audit";

/// Looks after the log until it is dropped.
pub(crate) async fn watch_over(daemon: Arc<Daemon>, audit: Arc<Audit>) {
    let mut before: Option<Error> = None;
    loop {
        if audit.condition().append_error.is_some() {
            // Whoever finds out that the disk is back need not be somebody who wants a signature.
            let _ = audit.tell(Event::of_daemon("resume").with_refused(audit.refused.load(Relaxed))).await;
        }
        let trouble = audit.trouble();
        match (&before, &trouble) {
            (None, Some(error)) => tracing::error!("{error}"),
            (Some(before), Some(error)) if before.what() != error.what() => tracing::debug!("{error}"),
            (Some(_), None) => {
                let refused = audit.refused.swap(0, Relaxed);
                tracing::info!(refused, "the audit log is written again");
            }
            _ => {}
        }
        daemon.board.set(NAME, trouble.is_none());
        // Without its log the daemon serves nobody.
        daemon.board.set("", trouble.is_none() && !daemon.is_stopping());
        before = trouble;
        let left_over = lock(&audit.denials).left_over();
        for (caller, count) in left_over {
            let event = Event::of_daemon("denials").of(caller).denied().with_suppressed(count);
            drop(audit.append(event));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}
