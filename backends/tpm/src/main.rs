//! The driver process for TPMs. signerd starts it, with a socket as its standard input.

use std::{process::ExitCode, sync::Arc};

use signer_core::Backend;
use signer_driver::Setup;
use signer_tpm::{TpmBackend, TpmConfig};

const USAGE: &str = "\
signerd-tpm gives signerd the keys of a TPM 2.0. signerd starts it by itself; there is no need to call it.

Usage: signerd-tpm                      serve the daemon that started this process
       signerd-tpm --help | --version";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => serve(),
        ["--help" | "-h" | "help"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        ["--version" | "-V"] => {
            println!("signerd-tpm {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn serve() -> ExitCode {
    quiet_tss();
    // To standard error, which the daemon passes on to its own log, with the time. The TSS crate reports each response
    // code as an error although most are expected: what matters of them is in our own errors.
    let levels = "info,tss_esapi=off";
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::new(levels))
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .init();
    signer_driver::run(|setup: Setup| {
        let config = TpmConfig::from_json(setup.options).map_err(|e| e.device(&setup.backend))?;
        Ok(Arc::new(TpmBackend::new(config, setup.backend, setup.pins)?) as Arc<dyn Backend>)
    })
}

/// libtss2 writes to standard error by itself whatever a TPM answers, unless it is told not to.
#[allow(unsafe_code)] // the environment is the only way to tell it
fn quiet_tss() {
    if std::env::var_os("TSS2_LOG").is_none() {
        // SAFETY: this is the first thing that the program does, and it has one thread.
        unsafe { std::env::set_var("TSS2_LOG", "all+NONE") };
    }
}
