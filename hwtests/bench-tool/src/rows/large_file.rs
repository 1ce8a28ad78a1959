//! A file of 1 GiB: hashing at disk speed in little memory.

use std::{
    fs,
    io::{Read, Write},
    process::{Command, Stdio},
    sync::mpsc,
    time::{Duration, Instant},
};

use super::{Contender, Result};
use crate::{
    procfs,
    report::{Goal, Limit, Line, Row, median},
    run::Bench,
    stage,
};

/// How a process went.
struct Ran {
    seconds: f64,
    peak_mib: f64,
}

pub(super) fn row(bench: &Bench) -> Result<Row> {
    let stage = &bench.stage;
    let mib = if bench.short { 128 } else { 1024 };
    let (file, pem) = (stage.path("large"), stage.path("openssl.pem"));
    write_file(&file, mib)?;
    let openssl = || stage.foreign("openssl".as_ref());
    must_make_key(openssl(), &pem)?;
    let daemon = stage.daemon()?;
    let (signature, bundle) = (stage.path("large.sig"), stage.path("large.sigstore.json"));
    let mut contenders = vec![
        Contender::new("openssl dgst -sha256 -sign", || {
            let mut command = openssl();
            command.args(["dgst", "-sha256", "-sign"]).arg(&pem).arg("-out").arg(&signature).arg(&file);
            ran(command)
        }),
        Contender::new("signer sign", || {
            let mut command = stage.program("signer");
            command.arg("--socket").arg(&daemon.socket).args(["--quiet", "sign", "--key", "hsm/p256"]);
            command.arg("--bundle").arg(&bundle).arg(&file);
            ran(command)
        }),
    ];
    let rounds = bench.rounds(&mut contenders)?;
    let lines = contenders
        .iter()
        .zip(&rounds)
        .map(|(contender, rounds)| {
            Line::new(&contender.who)
                .with("seconds", median(rounds.iter().map(|r| r.seconds)), 3)
                .with("MiB/s", mib as f64 / median(rounds.iter().map(|r| r.seconds)), 0)
                .with("peak MiB", median(rounds.iter().map(|r| r.peak_mib)), 1)
        })
        .collect();
    drop(contenders);
    let verify = stage.program("signer");
    must_verify(verify, &daemon.socket, &file, &bundle)?;
    fs::remove_file(&file)?;
    let times: Vec<f64> = rounds[1].iter().zip(&rounds[0]).map(|(o, t)| o.seconds / t.seconds).collect();
    let peaks: Vec<f64> = rounds[1].iter().map(|r| r.peak_mib).collect();
    Ok(Row {
        name: "large-file",
        title: if bench.short {
            "A file of 128 MiB, in the page cache"
        } else {
            "A file of 1 GiB, in the page cache"
        },
        lines,
        goals: vec![
            Goal::new("time, of openssl's", " times", &times, Limit::AtMost(1.1)),
            Goal::new("memory", " MiB", &peaks, Limit::AtMost(30.0)),
        ],
    })
}

/// Writes random bytes, a mebibyte again and again, and reads them once: then they are in the page cache.
fn write_file(path: &std::path::Path, mib: usize) -> Result<()> {
    let mut block = vec![0; 1 << 20];
    fs::File::open("/dev/urandom")?.read_exact(&mut block)?;
    let mut file = fs::File::create(path)?;
    for _ in 0..mib {
        file.write_all(&block)?;
    }
    file.sync_all()?;
    let mut file = fs::File::open(path)?;
    while file.read(&mut block)? > 0 {}
    Ok(())
}

fn must_make_key(mut openssl: Command, pem: &std::path::Path) -> Result<()> {
    stage::must(openssl.args(["ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out"]).arg(pem))
        .map(drop)
}

/// What was measured was a signature of this file.
fn must_verify(
    mut signer: Command,
    socket: &std::path::Path,
    file: &std::path::Path,
    bundle: &std::path::Path,
) -> Result<()> {
    signer.arg("--socket").arg(socket).args(["--quiet", "verify", "--key", "hsm/p256"]);
    stage::must(signer.arg("--bundle").arg(bundle).arg(file)).map(drop)
}

/// Runs a process to its end, and reads every 5 ms how much memory it has had at most.
fn ran(mut command: Command) -> Result<Ran> {
    let start = Instant::now();
    let mut child = command.stdout(Stdio::null()).spawn()?;
    let pid = child.id();
    let (ended, end) = mpsc::channel::<()>();
    let watcher = std::thread::spawn(move || {
        let mut peak = 0.0;
        while end.recv_timeout(Duration::from_millis(5)) == Err(mpsc::RecvTimeoutError::Timeout) {
            peak = procfs::memory_mib(pid, "VmHWM").unwrap_or_default().max(peak);
        }
        peak
    });
    let status = child.wait()?;
    let seconds = start.elapsed().as_secs_f64();
    drop(ended);
    let peak_mib = watcher.join().map_err(|_| "the watcher panicked")?;
    if !status.success() {
        return Err(format!("it ended with {status}").into());
    }
    Ok(Ran { seconds, peak_mib })
}
