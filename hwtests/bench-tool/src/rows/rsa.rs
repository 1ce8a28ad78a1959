//! RSA-3072: the signature takes a millisecond, the way to it must not matter.

use super::{Result, lines, loading, rates};
use crate::{
    report::{Goal, Limit, Row},
    run::Bench,
};

pub(super) fn row(bench: &Bench) -> Result<Row> {
    let stage = &bench.stage;
    let daemon = stage.daemon()?;
    let mut contenders = vec![
        loading("raw PKCS#11, 16 threads", || stage.raw(&stage.module, "rsa3072", 16, None)),
        loading("signerd, 16 clients", || {
            let mut command = stage.drive(&daemon, "hsm/rsa3072", 16);
            command.args(["--algorithm", "rsa-pkcs1-sha256"]);
            command
        }),
    ];
    let rounds = bench.rounds(&mut contenders)?;
    Ok(Row {
        name: "rsa",
        title: "16 clients, a call each, RSA-3072 on SoftHSM",
        lines: lines(&contenders, &rounds),
        goals: vec![Goal::new(
            "rate, of raw's",
            " times",
            &rates(&rounds[1], &rounds[0]),
            Limit::AtLeast(0.95),
        )],
    })
}
