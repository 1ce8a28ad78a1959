//! The daemon: its socket, whether the caller may open it, and what it says of its backends.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
    time::{Duration, Instant},
};

use signer_core::{ErrorKind, Result};
use signerd_api::{BackendStatus, Client};

use super::Finding;
use crate::{context::Context, places};

pub(super) async fn check(socket: &Path, context: &Context, findings: &mut Vec<Finding>) {
    let at = socket.display();
    let meta = match fs::metadata(socket) {
        Ok(meta) => meta,
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => {
            findings.push(Finding::problem(
                format!("you may not look into the folder of the socket {at}"),
                "join the group that owns it, or ask its administrator",
            ));
            return;
        }
        Err(_) => {
            findings.push(Finding::problem(
                format!("there is no socket at {at}"),
                "start signerd, or name its socket with --socket or SIGNERD_SOCKET",
            ));
            return;
        }
    };
    if !meta.file_type().is_socket() {
        findings.push(Finding::problem(format!("{at} is not a socket"), "name the right one with --socket"));
        return;
    }
    if rustix::fs::access(socket, rustix::fs::Access::WRITE_OK).is_err() {
        findings.push(no_access(socket, &meta));
        return;
    }
    findings.push(Finding::ok(format!("the socket {at} is there and you may open it")));
    let backends = match settled(&context.client_at(socket)).await {
        Ok(backends) => backends,
        Err(e) => {
            let fix = e.advice().unwrap_or("look into its log").to_owned();
            findings.push(Finding::problem(format!("the daemon does not answer: {}", e.what()), fix));
            return;
        }
    };
    findings.push(Finding::ok("the daemon answers"));
    if backends.is_empty() {
        findings.push(Finding::problem(
            format!("no grant lets {} use any backend", places::caller()),
            format!("add a [[grant]] with callers = [\"{}\"] to the configuration", places::caller()),
        ));
    }
    for backend in backends {
        findings.push(match backend.health {
            None => Finding::ok(format!("{}: the device works", backend.name)),
            Some(error) => {
                let fix = error
                    .advice()
                    .map_or_else(|| usual_fix(error.kind(), backend.name.as_str()), str::to_owned);
                Finding::problem(format!("{}: {}", backend.name, error.what()), fix)
            }
        });
    }
}

/// The backends, after a moment for those that are only being started.
async fn settled(client: &Client) -> Result<Vec<BackendStatus>> {
    const PATIENCE: Duration = Duration::from_secs(1);
    let begin = Instant::now();
    loop {
        let backends = client.backends().await?;
        let away = |b: &BackendStatus| b.health.as_ref().is_some_and(|e| e.kind() == ErrorKind::DeviceGone);
        if begin.elapsed() > PATIENCE || !backends.iter().any(away) {
            return Ok(backends);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Who may open the socket, and how to become one of them.
fn no_access(socket: &Path, meta: &fs::Metadata) -> Finding {
    let group = places::group_name(meta.gid());
    let mode = meta.permissions().mode() & 0o777;
    let mine = rustix::process::getgroups().unwrap_or_default().iter().any(|g| g.as_raw() == meta.gid());
    let fix = if mode & 0o020 == 0 {
        let owner = places::user_name(meta.uid()).unwrap_or_else(|| meta.uid().to_string());
        format!(
            "the socket is for {owner} only: set socket_mode = \"0660\" and socket_group in the configuration"
        )
    } else if mine {
        "the folders above it forbid it: check their permissions".to_owned()
    } else {
        let user = places::user_name(rustix::process::geteuid().as_raw()).unwrap_or_else(|| "YOU".to_owned());
        format!("run `usermod -aG {group} {user}` as root, and log in again")
    };
    Finding::problem(
        format!("you may not open the socket {} (group {group}, mode {mode:04o})", socket.display()),
        fix,
    )
}

fn usual_fix(kind: ErrorKind, backend: &str) -> String {
    match kind {
        ErrorKind::PinRequired => format!("run `signer keys unlock {backend}`"),
        ErrorKind::WrongPin { .. } | ErrorKind::Locked => {
            format!(
                "run `signer keys unlock {backend}` with the right PIN; the device's own tool unblocks it"
            )
        }
        ErrorKind::DeviceGone => {
            "plug the device in, or start its service; signerd finds it again by itself".to_owned()
        }
        _ => "look into the daemon's log".to_owned(),
    }
}
