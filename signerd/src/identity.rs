//! Who calls: what the kernel says of the other end of a socket, and the names that belong to it.

#![allow(unsafe_code)] // SO_PEERGROUPS has no safe wrapper

use std::{
    collections::HashMap,
    fmt, io,
    os::fd::{AsRawFd, RawFd},
    sync::{Mutex, PoisonError},
};

use nix::unistd::{Gid, Group, Uid, User};
use tokio::net::UnixStream;

/// A caller: user, primary group, and the groups that its process had when it connected. Two with the same of these are
/// the same caller, whatever their processes are.
#[derive(Clone, Debug)]
pub struct Identity {
    /// `None` for somebody of whom only a group is known (`signerd explain`).
    uid: Option<u32>,
    groups: Box<[u32]>,
    process: Option<Process>,
}

/// The process that has connected: told to people, never decided by.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its number; `None` if it is in a namespace that this one does not see.
    pub pid: Option<u32>,
    /// Its primary group.
    pub gid: u32,
    /// The file that it runs, or its name where that may not be seen.
    pub program: Option<String>,
    /// The name of its user.
    pub user: Option<String>,
}

impl PartialEq for Identity {
    fn eq(&self, other: &Self) -> bool {
        (self.uid, &self.groups) == (other.uid, &other.groups)
    }
}

impl Eq for Identity {}

impl std::hash::Hash for Identity {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.uid, &self.groups).hash(state);
    }
}

impl Identity {
    /// The process at the other end of a connection, as the kernel noted it when it connected. Process numbers are
    /// not used: they are given to others later.
    pub fn of_peer(stream: &UnixStream) -> io::Result<Self> {
        let peer = stream.peer_cred()?;
        let mut groups = peer_groups(stream.as_raw_fd())?;
        groups.push(peer.gid());
        let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok()).filter(|pid| *pid > 0);
        let process = Process { pid, gid: peer.gid(), program: None, user: None };
        Ok(Self { process: Some(process), ..Self::new(Some(peer.uid()), groups) })
    }

    /// The same caller with the names of its program and its user, for the audit log. The program is looked for a moment
    /// after the process has connected, so that it is still there; that its number was given to another one meanwhile is
    /// not likely, and not ruled out.
    pub(crate) async fn with_names(mut self) -> Self {
        let described = self.describe().await;
        if let Some(process) = &mut self.process {
            process.user = described.strip_suffix(')').and_then(|d| Some(d.split_once(" (")?.0.to_owned()));
            process.program = process.pid.and_then(program);
        }
        self
    }

    /// The process that has connected, for those who came over the socket.
    pub fn process(&self) -> Option<&Process> {
        self.process.as_ref()
    }

    /// A user with all groups that the system's databases give it.
    pub fn of_user(name: &str) -> Option<Self> {
        let user = User::from_name(name).ok().flatten()?;
        let name = std::ffi::CString::new(name).ok()?;
        let groups = nix::unistd::getgrouplist(&name, user.gid).unwrap_or_else(|_| vec![user.gid]);
        Some(Self::new(Some(user.uid.as_raw()), groups.into_iter().map(Gid::as_raw).collect()))
    }

    /// A user by number, with all groups that the system's databases give it.
    pub fn of_uid(uid: u32) -> Self {
        let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        user.and_then(|u| Self::of_user(&u.name)).unwrap_or_else(|| Self::new(Some(uid), Vec::new()))
    }

    /// Somebody in a group.
    pub fn of_group(gid: u32) -> Self {
        Self::new(None, vec![gid])
    }

    /// Somebody of whom nothing is known.
    pub fn anybody() -> Self {
        Self::new(None, Vec::new())
    }

    /// A caller with these groups.
    pub fn new(uid: Option<u32>, mut groups: Vec<u32>) -> Self {
        groups.sort_unstable();
        groups.dedup();
        Self { uid, groups: groups.into(), process: None }
    }

    /// The user.
    pub fn uid(&self) -> Option<u32> {
        self.uid
    }

    /// Whether the caller is in a group.
    pub fn is_in(&self, gid: u32) -> bool {
        self.groups.binary_search(&gid).is_ok()
    }

    /// The caller with its name, for messages. The databases of users may be slow: asked off the runtime, and kept.
    pub async fn describe(&self) -> String {
        let Some(uid) = self.uid else { return self.to_string() };
        if let Some(name) = known_name(uid) {
            return name;
        }
        let name = tokio::task::spawn_blocking(move || {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            user.map_or_else(|| format!("uid {uid}"), |u| format!("{} (uid {uid})", u.name))
        })
        .await
        .unwrap_or_else(|_| self.to_string());
        let mut names = NAMES.lock().unwrap_or_else(PoisonError::into_inner);
        let names = names.get_or_insert_default();
        // Renamed users are rare, endless numbers of them a mistake somewhere.
        if names.len() >= 1000 {
            names.clear();
        }
        names.insert(uid, name.clone());
        name
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.uid.map(|uid| (uid, known_name(uid))), self.groups.first()) {
            (Some((_, Some(name))), _) => f.write_str(&name),
            (Some((uid, None)), _) => write!(f, "uid {uid}"),
            (None, Some(gid)) => write!(f, "a member of group {gid}"),
            (None, None) => f.write_str("anybody"),
        }
    }
}

/// The file that a process runs; its own name for itself where that is not for us to see.
fn program(pid: u32) -> Option<String> {
    let file = std::fs::read_link(format!("/proc/{pid}/exe")).map(|p| p.to_string_lossy().into_owned());
    let name = || Some(std::fs::read_to_string(format!("/proc/{pid}/comm")).ok()?.trim_end().to_owned());
    file.ok().or_else(name)
}

static NAMES: Mutex<Option<HashMap<u32, String>>> = Mutex::new(None);

fn known_name(uid: u32) -> Option<String> {
    NAMES.lock().unwrap_or_else(PoisonError::into_inner).as_ref()?.get(&uid).cloned()
}

/// The number of a user.
pub(crate) fn uid_of(name: &str) -> Option<u32> {
    Some(User::from_name(name).ok().flatten()?.uid.as_raw())
}

/// The number of a group.
pub(crate) fn gid_of(name: &str) -> Option<u32> {
    Some(Group::from_name(name).ok().flatten()?.gid.as_raw())
}

/// The supplementary groups of the process at the other end of a Unix socket (socket(7), `SO_PEERGROUPS`).
fn peer_groups(socket: RawFd) -> io::Result<Vec<u32>> {
    let mut groups = vec![0_u32; 64];
    loop {
        let mut len = (groups.len() * size_of::<u32>()) as libc::socklen_t;
        // SAFETY: `groups` is writable for `len` bytes, the kernel writes at most that many and says how many in `len`.
        let result = unsafe {
            libc::getsockopt(
                socket,
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let count = len as usize / size_of::<u32>();
        if result == 0 {
            groups.truncate(count);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        // The kernel has said how much room it wants.
        if error.raw_os_error() == Some(libc::ERANGE) && count > groups.len() {
            groups.resize(count, 0);
        } else {
            return Err(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_says_who_calls() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let caller = Identity::of_peer(&ours).unwrap();
        assert_eq!(caller.uid(), Some(rustix::process::geteuid().as_raw()));
        for gid in rustix::process::getgroups().unwrap() {
            assert!(caller.is_in(gid.as_raw()));
        }
        assert!(caller.is_in(rustix::process::getegid().as_raw()));
        assert!(!caller.is_in(4_000_000_000));
        let caller = caller.with_names().await;
        let process = caller.process().unwrap();
        assert_eq!(process.pid, Some(std::process::id()));
        assert_eq!(process.program, std::env::current_exe().ok().map(|p| p.display().to_string()));
    }

    #[tokio::test]
    async fn users_have_names() {
        assert_eq!(Identity::of_user("root").unwrap().describe().await, "root (uid 0)");
        assert_eq!(Identity::new(Some(3_999_999_999), vec![]).describe().await, "uid 3999999999");
        assert!(Identity::of_user("no-such-user").is_none());
    }
}
