//! What the kernel says of processes, and signals to them.

use std::fs;

use rustix::process::Pid;
pub use rustix::process::Signal;

/// Sends a signal to one process.
pub fn signal(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process number");
    let _ = rustix::process::kill_process(pid, signal);
}

/// The processes that this one has started, by whichever of its threads.
pub fn children(pid: u32) -> Vec<u32> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks
        .flatten()
        .filter_map(|task| fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| text.split_whitespace().filter_map(|p| p.parse().ok()).collect::<Vec<_>>())
        .collect()
}

/// A process and all that it has started.
pub fn family(pid: u32) -> Vec<u32> {
    let mut all = vec![pid];
    let mut at = 0;
    while at < all.len() {
        all.extend(children(all[at]));
        at += 1;
    }
    all
}

/// A figure of `/proc/PID/status` in KiB: `VmRSS`, `VmHWM`.
pub fn memory_kib(pid: u32, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| {
            line.strip_prefix(field)?.trim_start_matches(':').split_whitespace().next()?.parse().ok()
        })
        .unwrap_or_else(|| panic!("process {pid} has no {field}: it has ended"))
}

/// A file of `/proc/PID` as bytes; empty when it cannot be read.
pub fn read(pid: u32, file: &str) -> Vec<u8> {
    fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

/// How many files a process has open.
pub fn open_files(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Whether a process is still there.
pub fn exists(pid: u32) -> bool {
    fs::metadata(format!("/proc/{pid}")).is_ok()
}

/// How often bytes are found in the memory of a process that it can write to. Only root may look.
pub fn memory_holds(pid: u32, needle: &[u8]) -> usize {
    use std::os::unix::fs::FileExt;
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).expect("the process is there");
    let memory =
        fs::File::open(format!("/proc/{pid}/mem")).expect("only root may look at a process's memory");
    let writable = maps.lines().filter_map(|line| {
        let (range, rest) = line.split_once(' ')?;
        let (from, to) = range.split_once('-')?;
        let range = (u64::from_str_radix(from, 16).ok()?, u64::from_str_radix(to, 16).ok()?);
        rest.starts_with("rw").then_some(range)
    });
    let mut found = 0;
    for (from, to) in writable {
        let mut bytes = vec![0; (to - from) as usize];
        // Pages that were never touched cannot be read on some kernels: what can be is enough.
        let Ok(read) = memory.read_at(&mut bytes, from) else { continue };
        let mut rest = &bytes[..read];
        // Without optimisation, windows() over a heap takes seconds.
        while let Some(at) = rest.iter().position(|b| *b == needle[0]) {
            rest = &rest[at..];
            found += usize::from(rest.starts_with(needle));
            rest = &rest[1..];
        }
    }
    found
}
