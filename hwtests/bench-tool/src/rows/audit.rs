//! What the audit log costs: the daemon with it beside the daemon without.

use super::{Contender, Result, lines, loading, rates};
use crate::{
    disk::durable_write,
    measure::Load,
    report::{Goal, Limit, Line, Row, median},
    run::Bench,
    stage::Server,
};

/// Clients of the throughput half.
const MANY: usize = 64;

pub(super) fn row(bench: &Bench) -> Result<Row> {
    let stage = &bench.stage;
    let without = stage.daemon()?;
    let with = stage.audited_daemon(&without)?;
    let load = |server: &Server, clients| stage.drive(server, "hsm/p256", clients);
    let mut contenders: Vec<Contender<'_, Load>> = vec![
        loading("1 client, no audit log", || load(&without, 1)),
        loading("1 client, audit log", || load(&with, 1)),
        loading("64 clients, no audit log", || load(&without, MANY)),
        loading("64 clients, audit log", || load(&with, MANY)),
    ];
    // The disk in the same run: before each round, as everything drifts.
    let mut writes = Vec::new();
    let mut rounds: Vec<Vec<Load>> = contenders.iter().map(|_| Vec::new()).collect();
    for _ in 0..bench.rounds {
        writes.push(durable_write(&stage.path("durable-write"))?.as_secs_f64() * 1000.0);
        for (contender, loads) in contenders.iter_mut().zip(&mut rounds) {
            loads.push((contender.run)().map_err(|e| format!("{}: {e}", contender.who))?);
        }
    }
    let added: Vec<f64> =
        (0..bench.rounds).map(|i| (rounds[1][i].p50_ms - rounds[0][i].p50_ms) / writes[i]).collect();
    let mut lines = lines(&contenders, &rounds);
    lines.push(Line::new("a durable write of 4 KiB").with("p50 ms", median(writes), 3));
    Ok(Row {
        name: "audit",
        title: "The audit log on, P-256 on SoftHSM",
        lines,
        goals: vec![
            Goal::new(
                "p50 of a lone caller above that without, in durable writes",
                "",
                &added,
                Limit::AtMost(1.0),
            ),
            Goal::new(
                "rate of 64 clients, of that without",
                " times",
                &rates(&rounds[3], &rounds[2]),
                Limit::AtLeast(0.85),
            ),
        ],
    })
}
