//! Sixteen clients with a call each: throughput and its tail.

use super::{Result, lines, loading, p11_kit, parsec, rates, ratios};
use crate::{
    report::{Goal, Limit, Row},
    run::Bench,
};

pub(super) fn row(bench: &Bench) -> Result<Row> {
    let stage = &bench.stage;
    let daemon = stage.daemon()?;
    let mut contenders = vec![
        loading("raw PKCS#11, 16 threads", || stage.raw(&stage.module, "p256", 16, None)),
        loading("signerd, 16 clients", || stage.drive(&daemon, "hsm/p256", 16)),
    ];
    // What a peer adds, and how many times its rate ours must be.
    let mut peers = Vec::new();
    for (contender, goal) in [
        (p11_kit::remoting(bench, 16), 2.0),
        (parsec::as_shipped(bench, 16), 10.0),
        (parsec::tuned(bench, 16), 4.0),
    ] {
        if let Some(contender) = contender {
            peers.push((contenders.len(), contender.who.clone(), goal));
            contenders.push(contender);
        }
    }
    let rounds = bench.rounds(&mut contenders)?;
    let (raw, ours) = (&rounds[0], &rounds[1]);
    let mut goals = vec![
        Goal::new("rate, of raw's", " times", &rates(ours, raw), Limit::AtLeast(0.9)),
        Goal::new("p99, of raw's", " times", &ratios(ours, raw, |l| l.p99_ms), Limit::AtMost(0.2)),
    ];
    for (at, who, goal) in peers {
        let what = format!("rate, of that of {who}");
        goals.push(Goal::new(what, " times", &rates(ours, &rounds[at]), Limit::AtLeast(goal)));
    }
    Ok(Row {
        name: "clients-16",
        title: "16 clients, a call each, P-256 on SoftHSM",
        lines: lines(&contenders, &rounds),
        goals,
    })
}
