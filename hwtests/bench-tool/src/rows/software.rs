//! The software backend beside a server that does nothing but sign.

use super::{Result, lines, loading};
use crate::{
    report::{Goal, Limit, Row, rate},
    run::Bench,
    stage::Server,
};

pub(super) fn row(bench: &Bench) -> Result<Row> {
    let stage = &bench.stage;
    let ours = stage.software_daemon()?;
    let (one, two) = (bare(bench, 1)?, bare(bench, 2)?);
    let mut contenders = vec![
        loading("bare server, current-thread runtime", || stage.drive(&one, "bare/p256", 16)),
        loading("bare server, 2 runtime threads", || stage.drive(&two, "bare/p256", 16)),
        loading("signerd", || stage.drive(&ours, "soft/p256", 16)),
    ];
    let rounds = bench.rounds(&mut contenders)?;
    let share: Vec<f64> = (0..bench.rounds)
        .map(|i| rate(&rounds[2][i]) / f64::max(rate(&rounds[0][i]), rate(&rounds[1][i])))
        .collect();
    Ok(Row {
        name: "software",
        title: "16 clients, a call each, P-256 in the software backend",
        lines: lines(&contenders, &rounds),
        goals: vec![Goal::new("rate, of the better bare server's", " times", &share, Limit::AtLeast(0.8))],
    })
}

fn bare(bench: &Bench, threads: usize) -> Result<Server> {
    let socket = format!("bare-{threads}.sock");
    let mut command = bench.stage.program("signer-bench");
    command.arg("bare-server").arg("--socket").arg(bench.stage.path(&socket));
    command.arg("--runtime-threads").arg(threads.to_string());
    let server = bench.stage.server(command, &socket)?;
    server.wait()?;
    Ok(server)
}
