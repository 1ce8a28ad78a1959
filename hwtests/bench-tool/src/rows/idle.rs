//! What a daemon costs that does nothing, and how soon it is there.

use std::time::{Duration, Instant};

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
    Ok(Row {
        name: "idle",
        title: "A daemon with the software backend and one key",
        lines: vec![Line::new("signerd").with("start ms", median(starts.iter().copied()), 1).with(
            "idle MiB",
            median(sizes.iter().copied()),
            1,
        )],
        goals: vec![
            Goal::new("start until it answers", " ms", &starts, Limit::AtMost(50.0)),
            Goal::new("resident memory", " MiB", &sizes, Limit::AtMost(20.0)),
        ],
    })
}

/// Milliseconds from the start of the process to an answer that tells of its backend, healthy.
fn start(bench: &Bench) -> Result<f64> {
    let runtime = crate::drive::runtime(1)?;
    let start = Instant::now();
    let daemon = bench.stage.start_signerd("software.toml", "software.sock")?;
    daemon.wait()?;
    let backends = runtime.block_on(async { Client::connect(&daemon.socket).await?.backends().await })?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    match &backends[..] {
        [soft] if soft.health.is_none() => Ok(took),
        _ => Err(format!("the daemon answers, but is not healthy: {backends:?}").into()),
    }
}
