//! A small file signed by a process of its own, beside ssh-keygen with a key of the same token in ssh-agent.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::Instant,
};

use super::{Contender, Result};
use crate::{
    report::{Goal, Limit, Line, Row, median},
    run::Bench,
    stage::{self, Server},
};

pub(super) fn row(bench: &Bench) -> Result<Row> {
    let stage = &bench.stage;
    let runs = if bench.short { 20 } else { 100 };
    let file = stage.path("small");
    fs::write(&file, "a small file\n")?;
    let daemon = stage.daemon()?;
    let agent = ssh_agent(bench)?;
    let signature = stage.path("small.sig");
    let ssh_keygen = || -> Result<f64> {
        // It asks before it replaces a signature.
        let _ = fs::remove_file(&signature);
        let mut command = stage.foreign("ssh-keygen".as_ref());
        command.env("SSH_AUTH_SOCK", &agent.socket).args(["-q", "-Y", "sign", "-n", "file", "-f"]);
        milliseconds(command.arg(stage.path("ssh.pub")).arg(&file))
    };
    let signer = || -> Result<f64> {
        let mut command = stage.program("signer");
        command.arg("--socket").arg(&daemon.socket).args(["--quiet", "sign", "--key", "hsm/p256"]);
        milliseconds(command.arg(&file))
    };
    // In turns within a round too: what a process costs drifts more than what a signature costs.
    let mut contenders = vec![Contender::new("both", || {
        let (mut theirs, mut ours) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            theirs.push(ssh_keygen()?);
            ours.push(signer()?);
        }
        Ok((median(theirs), median(ours)))
    })];
    let rounds = bench.rounds(&mut contenders)?.swap_remove(0);
    let ratios: Vec<f64> = rounds.iter().map(|(theirs, ours)| ours / theirs).collect();
    Ok(Row {
        name: "process",
        title: "A small file, a process for each signature, P-256 on SoftHSM",
        lines: vec![
            Line::new("ssh-keygen -Y sign, through ssh-agent").with(
                "ms",
                median(rounds.iter().map(|r| r.0)),
                2,
            ),
            Line::new("signer sign, through signerd").with("ms", median(rounds.iter().map(|r| r.1)), 2),
        ],
        goals: vec![Goal::new("time, of ssh-keygen's", " times", &ratios, Limit::AtMost(1.0))],
    })
}

fn milliseconds(command: &mut Command) -> Result<f64> {
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let start = Instant::now();
    let output = command.spawn()?.wait_with_output()?;
    let took = start.elapsed().as_secs_f64() * 1e3;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        return Err(
            format!("{} ended with {}: {said}", command.get_program().display(), output.status).into()
        );
    }
    Ok(took)
}

/// An agent with the keys of the token; the public half of the P-256 key is in `ssh.pub`.
fn ssh_agent(bench: &Bench) -> Result<Server> {
    let stage = &bench.stage;
    let module = fs::canonicalize(&stage.module)?;
    let mut command = stage.foreign("ssh-agent".as_ref());
    command.arg("-D").arg("-P").arg(&module).arg("-a").arg(stage.path("agent.sock"));
    let agent = stage.server(command, "agent.sock")?;
    agent.wait()?;
    let askpass = stage.path("askpass");
    fs::write(&askpass, format!("#!/bin/sh\ncat '{}'\n", stage.path("pin").display()))?;
    fs::set_permissions(&askpass, fs::Permissions::from_mode(0o700))?;
    let ssh_add = || {
        let mut command = stage.foreign("ssh-add".as_ref());
        command
            .env("SSH_AUTH_SOCK", &agent.socket)
            .env("SSH_ASKPASS", &askpass)
            .env("SSH_ASKPASS_REQUIRE", "force");
        command
    };
    stage::must(ssh_add().arg("-s").arg(&module))?;
    let keys = stage::must(ssh_add().arg("-L"))?;
    let key = keys
        .lines()
        .find(|l| l.starts_with("ecdsa-sha2-nistp256 ") && l.ends_with(" p256"))
        .ok_or("ssh-agent does not show the key p256")?;
    fs::write(stage.path("ssh.pub"), format!("{key}\n"))?;
    Ok(agent)
}
