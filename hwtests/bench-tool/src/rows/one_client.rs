//! One client that waits for each answer: latency.

use super::{Result, lines, loading, parsec, rates};
use crate::{
    measure::Load,
    report::{Goal, Limit, Row},
    run::Bench,
};

pub(super) fn row(bench: &Bench) -> Result<Row> {
    let stage = &bench.stage;
    let (spinning, sleepy) = (stage.daemon()?, stage.daemon_without_spinning()?);
    let mut contenders = vec![
        loading("raw PKCS#11, 1 thread", || stage.raw(&stage.module, "p256", 1, None)),
        loading("signerd", || stage.drive(&spinning, "hsm/p256", 1)),
        loading("signerd, spin = false", || stage.drive(&sleepy, "hsm/p256", 1)),
    ];
    contenders.extend(parsec::as_shipped(bench, 1));
    let rounds = bench.rounds(&mut contenders)?;
    let added = |ours: &[Load]| -> Vec<f64> {
        ours.iter().zip(&rounds[0]).map(|(o, r)| o.p50_ms - r.p50_ms).collect()
    };
    let mut goals = vec![
        Goal::new("p50 above raw", " ms", &added(&rounds[1]), Limit::AtMost(0.08)),
        Goal::new("p50 above raw without spinning", " ms", &added(&rounds[2]), Limit::AtMost(0.16)),
    ];
    if let Some(parsec) = rounds.get(3) {
        let times = rates(&rounds[1], parsec);
        goals.push(Goal::new("rate, of Parsec's as shipped", " times", &times, Limit::AtLeast(100.0)));
    }
    Ok(Row {
        name: "one-client",
        title: "One client, P-256 on SoftHSM",
        lines: lines(&contenders, &rounds),
        goals,
    })
}
