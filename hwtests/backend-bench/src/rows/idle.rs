//! A daemon with every kind of backend, each used once, that does nothing.

use std::time::Duration;

use hwtests::{engines::EveryKind, load::input};
use signer_core::{HashAlgorithm, SignatureAlgorithm};

use super::Bench;
use crate::{
    Result, procfs,
    report::{Goal, Limit, Line, Row, median},
};

pub(super) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let engines = EveryKind::start();
    let daemon = bench.daemon(&engines.toml());
    let algorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);
    bench.wait(EveryKind::make_keys(&daemon));
    for (name, key) in EveryKind::KEYS {
        let client = daemon.client();
        bench.wait(client.sign(&format!("{name}/{key}"), Some(algorithm), input(algorithm, "x")))?;
    }
    let (mut sizes, mut drivers) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        std::thread::sleep(Duration::from_secs(2));
        let size = |pid| procfs::memory_mib(pid, "VmRSS").ok_or("a process has ended");
        sizes.push(size(daemon.pid())?);
        drivers.push(daemon.drivers().into_iter().map(size).sum::<Result<f64, _>>()?);
    }
    Ok(vec![Row {
        name: "idle",
        title: "A daemon with every kind of backend, each used once",
        lines: vec![
            Line::new("signerd")
                .with("idle MiB", median(sizes.iter().copied()), 1)
                .with("drivers MiB", median(drivers), 1)
                .with("drivers", daemon.drivers().len() as f64, 0),
        ],
        goals: vec![Goal::new("resident memory", " MiB", &sizes, Limit::AtMost(40.0))],
    }])
}
