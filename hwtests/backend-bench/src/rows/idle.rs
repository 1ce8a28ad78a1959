//! A daemon with every kind of backend, each used once, that does nothing.

use std::time::Duration;

use hwtests::{
    engines::{AwsFace, Azure, Engine, Google, Piv, SoftHsm, Software, SwTpm, Vault},
    load::input,
};
use signer_contract::PinSetup;
use signer_core::{HashAlgorithm, KeyType, SignatureAlgorithm};

use super::Bench;
use crate::{
    Result, procfs,
    report::{Goal, Limit, Line, Row, median},
};

pub(super) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let (soft, hsm, card, tpm) = (Software::start(), SoftHsm::start(), Piv::start(), SwTpm::start());
    let (vault, aws, google, azure) = (Vault::start(), AwsFace::start(), Google::start(), Azure::start());
    let engines: [(&str, &dyn Engine, &str); 8] = [
        ("soft", &soft, "k"),
        ("hsm", &hsm, "k"),
        ("card", &card, "9a"),
        ("tpm", &tpm, "k"),
        ("vault", &vault, "k"),
        ("aws", &aws, "k"),
        ("google", &google, "k"),
        ("azure", &azure, "k"),
    ];
    let tables: Vec<_> = engines.iter().map(|(name, engine, _)| engine.toml(name, PinSetup::Right)).collect();
    let daemon = bench.daemon(&tables.join("\n"));
    let algorithm = SignatureAlgorithm::Ecdsa(HashAlgorithm::Sha256);
    for (name, _, key) in engines {
        bench.wait(async {
            daemon.backend(name).await;
            daemon.make_key_of(name, key, KeyType::EcdsaP256).await;
            daemon.client().sign(&format!("{name}/{key}"), Some(algorithm), input(algorithm, "x")).await
        })?;
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
