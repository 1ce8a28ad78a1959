//! Parsec: the other daemon for keys in hardware, through its own Rust client.

use std::{fs, path::Path, process::Command};

use super::{Contender, Result};
use crate::{
    measure::Load,
    run::Bench,
    stage::{self, TOKEN},
};

/// As it comes; `None` when it is not asked for.
pub(super) fn as_shipped(bench: &Bench, threads: usize) -> Option<Contender<'_, Load>> {
    contender(bench, threads, "Parsec as shipped", "")
}

/// With the settings that were found to be best for it: a short pause between looks for new connections (none at all
/// takes a core from everybody else: 2,363 instead of 3,198 requests a second were seen), and a thread for
/// each client.
pub(super) fn tuned(bench: &Bench, threads: usize) -> Option<Contender<'_, Load>> {
    contender(
        bench,
        threads,
        "Parsec at its best tuning",
        "idle_listener_sleep_duration = 1\nthread_pool_size = 16\n",
    )
}

fn contender<'a>(
    bench: &'a Bench,
    threads: usize,
    who: &'static str,
    tuning: &'static str,
) -> Option<Contender<'a, Load>> {
    let (service, client) = (bench.peers.parsec.as_ref()?, bench.peers.parsec_load.as_ref()?);
    Some(Contender::new(who, move || run(bench, service, client, threads, tuning)))
}

/// Started for each round, because each tuning is another one.
fn run(bench: &Bench, service: &Path, client: &Path, threads: usize, tuning: &str) -> Result<Load> {
    let stage = &bench.stage;
    let configuration = stage.path("parsec.toml");
    fs::write(&configuration, parsec_toml(bench, tuning)?)?;
    let mut command = Command::new(service);
    command
        .arg("--config")
        .arg(&configuration)
        .env("SOFTHSM2_CONF", stage.path("softhsm2.conf"))
        .current_dir(stage.path(""));
    let server = stage.server(command, "parsec.sock")?;
    server.wait()?;
    let mut command = stage.foreign(client);
    command.env("PARSEC_SERVICE_ENDPOINT", format!("unix:{}", server.socket.display()));
    command.arg("--threads").arg(threads.to_string());
    stage.timing(&mut command, Some(&server));
    stage::load(&mut command)
}

fn parsec_toml(bench: &Bench, tuning: &str) -> Result<String> {
    let stage = &bench.stage;
    let at = |name| stage.path(name).display().to_string();
    let pin = fs::read_to_string(stage.path("pin"))?;
    Ok(format!(
        "[core_settings]\nallow_root = true\nlog_level = \"error\"\n{tuning}\n\
         [listener]\nlistener_type = \"DomainSocket\"\ntimeout = 200\nsocket_path = {:?}\n\n\
         [authenticator]\nauth_type = \"UnixPeerCredentials\"\n\n\
         [[key_manager]]\nname = \"sqlite\"\nmanager_type = \"SQLite\"\nsqlite_db_path = {:?}\n\n\
         [[provider]]\nname = \"pkcs11\"\nprovider_type = \"Pkcs11\"\nkey_info_manager = \"sqlite\"\nlibrary_path = {:?}\n\
         serial_number = {:?}\nuser_pin = {pin:?}\n",
        at("parsec.sock"),
        at("parsec.sqlite3"),
        stage.module.display().to_string(),
        serial_number(bench)?,
    ))
}

/// Of the token, as pkcs11-tool shows it.
fn serial_number(bench: &Bench) -> Result<String> {
    let mut command = bench.stage.foreign("pkcs11-tool".as_ref());
    let slots = stage::must(command.arg("--module").arg(&bench.stage.module).arg("--list-token-slots"))?;
    let own =
        slots.split("token label").find(|s| s.lines().next().is_some_and(|l| l.trim_end().ends_with(TOKEN)));
    let number =
        own.and_then(|s| s.lines().find_map(|l| l.trim().strip_prefix("serial num")?.split(':').nth(1)));
    Ok(number.ok_or("pkcs11-tool does not show the token")?.trim().to_owned())
}
