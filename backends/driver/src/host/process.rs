//! Starting a driver process.

use std::{
    os::{fd::OwnedFd, unix::net::UnixStream},
    process::Stdio,
};

use signer_core::{Error, ErrorKind, Result};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::DriverConfig;

/// What a driver inherits of the daemon's environment: nothing that could hold a secret.
const INHERITED: [&str; 8] =
    ["PATH", "HOME", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH", "XDG_RUNTIME_DIR"];

/// Starts the program with one end of a socket pair as its standard input; its standard error goes to the log.
pub(super) fn spawn(config: &DriverConfig) -> Result<(Child, UnixStream)> {
    let fail = |e: std::io::Error| {
        Error::new(
            ErrorKind::DeviceGone,
            format!("the driver {} cannot be started", config.program.display()),
        )
        .device(&config.backend)
        .vendor(e)
        .next("is it installed beside signerd? `program` of the backend says where it is")
    };
    let (ours, theirs) = UnixStream::pair().map_err(fail)?;
    let inherited = INHERITED.iter().filter_map(|name| Some((*name, std::env::var_os(name)?)));
    let mut child = Command::new(&config.program)
        .args(&config.arguments)
        .env_clear()
        .envs(inherited)
        .envs(config.environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(fail)?;
    if let Some(stderr) = child.stderr.take() {
        let backend = config.backend.clone();
        tokio::spawn(async move {
            let mut lines = BufReader::new(stderr).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                tracing::info!(target: "driver", backend, "{line}");
            }
        });
    }
    ours.set_nonblocking(true).map_err(fail)?;
    Ok((child, ours))
}
