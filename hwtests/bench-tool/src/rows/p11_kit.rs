//! p11-kit's remoting: the module in a server process, PKCS#11 calls over a socket.

use super::{Contender, Result};
use crate::{
    measure::Load,
    run::Bench,
    stage::{self, Server, TOKEN},
};

/// Threads of one process with p11-kit's client module; `None` when it is not asked for.
pub(super) fn remoting(bench: &Bench, threads: usize) -> Option<Contender<'_, Load>> {
    let client = bench.peers.p11_kit.as_ref()?;
    Some(Contender::new("p11-kit remoting", move || {
        let server = server(bench)?;
        let mut command = bench.stage.raw(client, "p256", threads, Some(&server));
        command.env("P11_KIT_SERVER_ADDRESS", format!("unix:path={}", server.socket.display()));
        stage::load(&mut command)
    }))
}

fn server(bench: &Bench) -> Result<Server> {
    let stage = &bench.stage;
    let mut command = stage.foreign("p11-kit".as_ref());
    command.args(["server", "-f", "-n"]).arg(stage.path("p11-kit.sock")).arg("--provider").arg(&stage.module);
    command.arg(format!("pkcs11:token={TOKEN}"));
    let server = stage.server(command, "p11-kit.sock")?;
    server.wait()?;
    Ok(server)
}
