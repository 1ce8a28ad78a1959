//! Sixteen sign streams: what a heavy caller uses.

use super::{Contender, Result, lines, loading, rates};
use crate::{
    report::{Goal, Limit, Row},
    run::Bench,
    stage,
};

pub(super) fn row(bench: &Bench) -> Result<Row> {
    let stage = &bench.stage;
    let daemon = stage.daemon()?;
    let mut contenders = vec![
        loading("raw PKCS#11, 16 threads", || stage.raw(&stage.module, "p256", 16, None)),
        loading("signerd, 16 streams", || {
            let mut command = stage.drive(&daemon, "hsm/p256", 16);
            command.args(["--stream", "4"]);
            command
        }),
        // The most that any design of two driver processes could reach, if all else cost nothing.
        Contender::new("raw, 2 processes of 1 thread", || {
            let raw = || stage.raw(&stage.module, "p256", 1, None);
            stage::load_both(&mut raw(), &mut raw())
        }),
    ];
    let rounds = bench.rounds(&mut contenders)?;
    Ok(Row {
        name: "streams",
        title: "16 sign streams with 4 requests in flight each, P-256 on SoftHSM",
        lines: lines(&contenders, &rounds),
        goals: vec![Goal::new(
            "rate, of raw's",
            " times",
            &rates(&rounds[1], &rounds[0]),
            Limit::AtLeast(1.3),
        )],
    })
}
