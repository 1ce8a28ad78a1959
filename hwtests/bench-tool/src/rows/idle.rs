//! What a daemon costs that does nothing, and how soon it is there.

use std::time::{Duration, Instant};

use signer_core::{Digest, HashAlgorithm, Input};
use signerd_api::Client;

use super::Result;
use crate::{
    procfs,
    report::{Goal, Limit, Line, Row, median},
    run::Bench,
};

pub(super) fn row(bench: &Bench) -> Result<Row> {
    // Makes the key, which is then there at each start.
    drop(bench.stage.software_daemon()?);
    let (mut starts, mut sizes) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        starts.push(start(bench)?);
        let daemon = bench.stage.software_daemon()?; // it has signed once
        std::thread::sleep(Duration::from_secs(1));
        sizes.push(procfs::memory_mib(daemon.pid(), "VmRSS").ok_or("signerd has ended")?);
    }
    let ready: Vec<f64> = starts.iter().map(|s| s.ready).collect();
    Ok(Row {
        name: "idle",
        title: "A daemon with the software backend and one key",
        lines: vec![
            Line::new("signerd")
                .with("ready ms", median(ready.iter().copied()), 1)
                .with("healthy ms", median(starts.iter().map(|s| s.healthy)), 1)
                .with("signed ms", median(starts.iter().map(|s| s.signed)), 1)
                .with("idle MiB", median(sizes.iter().copied()), 1),
        ],
        goals: vec![
            Goal::new("start until it answers", " ms", &ready, Limit::AtMost(50.0)),
            Goal::new("resident memory", " MiB", &sizes, Limit::AtMost(20.0)),
        ],
    })
}

/// Milliseconds from the start of the process.
struct Start {
    /// Until it answers a request.
    ready: f64,
    /// Until it says that its backend is healthy, for which it derives the key that opens the key files: with scrypt,
    /// whose purpose it is to take time.
    healthy: f64,
    /// Until it has signed.
    signed: f64,
}

fn start(bench: &Bench) -> Result<Start> {
    let runtime = crate::drive::runtime(1)?;
    let start = Instant::now();
    let since = |start: Instant| start.elapsed().as_secs_f64() * 1e3;
    let daemon = bench.stage.start_signerd("software.toml", "software.sock")?;
    daemon.wait()?;
    runtime.block_on(async {
        let client = Client::connect(&daemon.socket).await?;
        let mut backends = client.backends().await?;
        let ready = since(start);
        while backends.iter().any(|b| b.health.is_some()) {
            if start.elapsed() > Duration::from_secs(10) {
                return Err("the software backend is not healthy after 10 s".into());
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
            backends = client.backends().await?;
        }
        let healthy = since(start);
        let digest = Digest::new(HashAlgorithm::Sha256, &crate::DIGEST)?;
        client.sign("soft/p256", None, Input::Digest(digest)).await?;
        Ok(Start { ready, healthy, signed: since(start) })
    })
}
