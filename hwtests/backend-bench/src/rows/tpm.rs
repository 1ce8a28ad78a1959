//! A TPM: swtpm, which has one connection, so that library and daemon have it in turns.

use hwtests::engines::{Engine, SwTpm};
use signer_contract::PinSetup;

use super::{Bench, row, this};
use crate::{Result, direct::With, report::Row};

pub(super) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let tpm = SwTpm::with_options(&[]);
    let table = tpm.toml("place", PinSetup::Right);
    drop(bench.daemon_with_a_key(&table));
    let with = With::Tpm { tcti: tpm.tcti() };
    let rounds = bench.compare(
        |callers| bench.direct(this()?, &with, callers, 2.0),
        |clients| {
            let daemon = bench.daemon(&table);
            bench.wait(daemon.backend("place"));
            let load = bench.drive(&daemon, "place/bench", clients, 2.0);
            daemon.stop();
            load
        },
    )?;
    Ok(vec![row(
        "tpm",
        "A TPM: P-256 in swtpm, which takes half a millisecond",
        "TSS, one thread",
        &rounds,
        true,
    )])
}
