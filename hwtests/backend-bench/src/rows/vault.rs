//! Vault: HashiCorp's server on this machine, at once and 10 ms away.

use hwtests::{
    engines::{Engine, Vault},
    proxy::{Carry, Proxy},
};
use signer_contract::PinSetup;

use super::{Bench, row, this};
use crate::{Result, direct::With, report::Row};

pub(super) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let vault = Vault::start();
    let proxy = bench.wait(Proxy::start(vault.address()));
    proxy.carry(Carry::Late);
    let table = vault.toml("place", PinSetup::Right);
    drop(bench.daemon_with_a_key(&table));
    let mut rows = Vec::new();
    for (title, address, goals) in [
        ("Vault, 10 ms away", proxy.address(), true),
        ("Vault on this machine, at once", vault.address().to_owned(), false),
    ] {
        let daemon = bench.daemon(&table.replace(vault.address(), &address));
        bench.wait(daemon.backend("place"));
        let with = With::Vault {
            url: format!("http://{address}"),
            token: vault.root().to_owned(),
            key: "bench".into(),
        };
        let rounds = bench.compare(
            |callers| bench.direct(this()?, &with, callers, 2.0),
            |clients| bench.drive(&daemon, "place/bench", clients, 2.0),
        )?;
        rows.push(row("vault", title, "reqwest", &rounds, goals));
    }
    Ok(rows)
}
