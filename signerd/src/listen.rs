//! The daemon's socket and its state folder, which are its own: a second daemon on either is told who has it.

use std::{
    fs::{DirBuilder, File, OpenOptions},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use rustix::fs::{FlockOperation, flock};
use tokio::net::{UnixListener, UnixStream};

use crate::config::Config;

/// Why the daemon cannot start: a sentence for people.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Refused(String);

fn refused(what: impl Into<String>) -> impl FnOnce(io::Error) -> Refused {
    let what = what.into();
    move |e| Refused(format!("{what}: {e}"))
}

/// The lock on the state folder. It ends with the process, whatever happens.
#[derive(Debug)]
pub(crate) struct StateLock {
    _file: File,
}

/// Makes the state folder and takes it.
pub(crate) fn lock_state(state: &Path) -> Result<StateLock, Refused> {
    make_private_folder(state)
        .map_err(refused(format!("the state folder {} cannot be made", state.display())))?;
    let path = state.join("lock");
    let file = lock(&path)?.map_err(|pid| {
        Refused(format!("the state folder {} belongs to {}", state.display(), another(pid)))
    })?;
    Ok(StateLock { _file: file })
}

fn make_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

fn another(pid: Option<u32>) -> String {
    match pid {
        Some(pid) => format!("another signerd that runs as process {pid}; stop it first"),
        None => "another signerd that is running; stop it first".to_owned(),
    }
}

/// Locks a file and writes this process's number into it. The inner error is the number that is in it.
fn lock(path: &Path) -> Result<Result<File, Option<u32>>, Refused> {
    let failed = |e| Refused(format!("{} cannot be locked: {e}", path.display()));
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)
        .map_err(failed)?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut text = String::new();
            let _ = file.take(32).read_to_string(&mut text);
            return Ok(Err(text.trim().parse().ok()));
        }
        Err(e) => return Err(failed(e.into())),
    }
    file.set_len(0).map_err(failed)?;
    file.rewind().map_err(failed)?;
    write!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(Ok(file))
}

/// A socket that the daemon listens on.
pub(crate) struct Listening {
    pub(crate) listener: UnixListener,
    /// What has to be taken away at the end; `None` for a socket that systemd keeps.
    own: Option<OwnSocket>,
}

struct OwnSocket {
    path: PathBuf,
    /// Device and inode: a socket that somebody else has put there since is not ours.
    identity: (u64, u64),
    _lock: File,
}

impl Listening {
    /// The socket that systemd has handed over, or the configured one.
    pub(crate) async fn start(config: &Config) -> Result<Self, Refused> {
        if let Some(listener) = from_systemd()? {
            return Ok(Self { listener, own: None });
        }
        bind(config).await
    }

    /// Whether the socket is this daemon's alone.
    pub(crate) fn is_own(&self) -> bool {
        self.own.is_some()
    }

    /// Takes the listener, and leaves what takes the socket away when it is dropped.
    pub(crate) fn split(self) -> (UnixListener, impl Drop) {
        (self.listener, RemoveSocket(self.own))
    }
}

struct RemoveSocket(Option<OwnSocket>);

impl Drop for RemoveSocket {
    fn drop(&mut self) {
        let Some(own) = &self.0 else { return };
        if identity(&own.path).is_ok_and(|now| now == own.identity) {
            let _ = std::fs::remove_file(&own.path);
        }
    }
}

fn from_systemd() -> Result<Option<UnixListener>, Refused> {
    let mut fds = listenfd::ListenFd::from_env();
    if fds.len() == 0 {
        return Ok(None);
    }
    if fds.len() > 1 {
        return Err(Refused(
            "systemd hands over more than one socket: signerd.socket has one ListenStream=".into(),
        ));
    }
    let failed = "the socket from systemd cannot be used";
    let listener = fds
        .take_unix_listener(0)
        .map_err(refused(failed))?
        .ok_or_else(|| Refused("the socket from systemd is no Unix stream socket".into()))?;
    listener.set_nonblocking(true).map_err(refused(failed))?;
    UnixListener::from_std(listener).map(Some).map_err(refused(failed))
}

/// Listens on the configured path. The socket shows up there with its right permissions, at once.
async fn bind(config: &Config) -> Result<Listening, Refused> {
    let path = &config.socket;
    let cannot = |e: io::Error| {
        let advice =
            if e.kind() == io::ErrorKind::PermissionDenied { "; choose another with --socket" } else { "" };
        Refused(format!("the daemon cannot listen on {}: {e}{advice}", path.display()))
    };
    if let Some(folder) = path.parent().filter(|f| !f.as_os_str().is_empty()) {
        make_socket_folder(folder, config).map_err(cannot)?;
        check_folder(folder)?;
    }
    let beside = |suffix: &str| {
        let mut name = path.clone().into_os_string();
        name.push(suffix);
        PathBuf::from(name)
    };
    // Held to the end: of two daemons that start at the same time, one sees the other.
    let lock = lock(&beside(".lock"))?
        .map_err(|pid| Refused(format!("the socket {} belongs to {}", path.display(), another(pid))))?;
    if let Ok(metadata) = std::fs::symlink_metadata(path) {
        if !metadata.file_type().is_socket() {
            return Err(Refused(format!("{} is there and is no socket: move it away", path.display())));
        }
        if let Ok(stream) = UnixStream::connect(path).await {
            let pid = stream.peer_cred().ok().and_then(|c| c.pid()).and_then(|pid| u32::try_from(pid).ok());
            return Err(Refused(format!("the socket {} belongs to {}", path.display(), another(pid))));
        }
    }
    let unfinished = beside(".new");
    let _ = std::fs::remove_file(&unfinished);
    let listener = UnixListener::bind(&unfinished).map_err(cannot)?;
    let finish = || {
        // As many callers at once as the system allows, instead of the runtime's default.
        rustix::net::listen(&listener, 4096)?;
        if let Some(group) = &config.socket_group {
            let gid = crate::identity::gid_of(group).ok_or_else(|| {
                io::Error::new(io::ErrorKind::NotFound, format!("no group is called {group:?}"))
            })?;
            chown(&unfinished, None, Some(gid))?;
        }
        std::fs::set_permissions(&unfinished, PermissionsExt::from_mode(config.socket_mode))?;
        std::fs::rename(&unfinished, path)?;
        identity(path)
    };
    match finish() {
        Ok(identity) => {
            Ok(Listening { listener, own: Some(OwnSocket { path: path.clone(), identity, _lock: lock }) })
        }
        Err(e) => {
            let _ = std::fs::remove_file(&unfinished);
            Err(cannot(e))
        }
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

/// The folder of the socket: for its group too, when others than the owner may open the socket.
fn make_socket_folder(folder: &Path, config: &Config) -> io::Result<()> {
    if folder.exists() {
        return Ok(());
    }
    let shared = config.socket_group.is_some() || rustix::process::geteuid().is_root();
    DirBuilder::new().recursive(true).mode(if shared { 0o755 } else { 0o700 }).create(folder)?;
    // The mask of the process would make it 0700.
    if shared {
        std::fs::set_permissions(folder, PermissionsExt::from_mode(0o755))?;
    }
    Ok(())
}

/// A folder in which others may replace the socket is no place for it. (A sticky one, such as /tmp, is.)
fn check_folder(folder: &Path) -> Result<(), Refused> {
    let shown = folder.display();
    let metadata = std::fs::metadata(folder)
        .map_err(refused(format!("the socket's folder {shown} cannot be looked at")))?;
    let foreign = metadata.uid() != 0 && metadata.uid() != rustix::process::geteuid().as_raw();
    let open = metadata.mode() & 0o002 != 0 && metadata.mode() & 0o1000 == 0;
    if foreign || open {
        return Err(Refused(format!(
            "others may replace a socket in {shown}: it belongs to user {} and has the mode {:o}; choose another folder \
             with --socket",
            metadata.uid(),
            metadata.mode() & 0o7777
        )));
    }
    Ok(())
}
