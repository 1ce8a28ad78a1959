//! A card: the virtual YubiKey, which takes 50 ms for the private operation. The quickest real ones take about that long.

use std::{process::Command, time::Duration};

use hwtests::engines::{Engine, Piv};
use hwtests_piv_card::{Fault, FaultKind};
use signer_contract::PinSetup;

use super::{Bench, row};
use crate::{Result, direct::With, report::Row};

pub(super) fn rows(bench: &Bench) -> Result<Vec<Row>> {
    let card = Piv::start();
    let daemon = bench.daemon(&card.toml("place", PinSetup::Right));
    bench.wait(async {
        daemon.backend("place").await;
        daemon.make_key("place", "9a").await
    });
    let slow = FaultKind::Slow(Duration::from_millis(50));
    card.card().fault(Fault { kind: slow, count: u32::MAX, instruction: Some(0x87) });
    let pin_file = card.pin_file(PinSetup::Right).ok_or("the card has no PIN")?;
    let with = With::Card { slot: "9a".into(), pin_file: pin_file.display().to_string() };
    let program = || -> Result<Command> { Ok(card.pcscd().command(std::env::current_exe()?)) };
    let rounds = bench.compare(
        |callers| bench.direct(program()?, &with, callers, 5.0),
        |clients| bench.drive(&daemon, "place/9a", clients, 5.0),
    )?;
    Ok(vec![row("card", "A card that takes 50 ms", "PIV library, one thread", &rounds, true)])
}
