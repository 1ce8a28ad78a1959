//! The driver process for PKCS#11 tokens. signerd starts it, with a socket as its standard input.

use std::{path::Path, process::ExitCode, sync::Arc, time::Duration};

use signer_core::Backend;
use signer_driver::Setup;
use signer_pkcs11::{Pkcs11Backend, Pkcs11Config, TokenInfo, list_tokens};

/// A fifth of a SoftHSM signature's time is spent in the system's malloc.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const USAGE: &str = "\
signerd-pkcs11 gives signerd the keys of a PKCS#11 token. signerd starts it by itself; there is no need to call it.

Usage: signerd-pkcs11                                       serve the daemon that started this process
       signerd-pkcs11 list-tokens MODULE [--output text|json]  show the tokens of a vendor's module
       signerd-pkcs11 --help | --version

MODULE is the path of the vendor's library, such as /usr/lib/softhsm/libsofthsm2.so.";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => serve(),
        ["list-tokens", module] | ["list-tokens", module, "--output", "text"] => show(module, print_text),
        ["list-tokens", module, "--output", "json"] | ["list-tokens", "--output", "json", module] => {
            show(module, print_json)
        }
        ["--help" | "-h" | "help"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        ["--version" | "-V"] => {
            println!("signerd-pkcs11 {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn serve() -> ExitCode {
    // To standard error, which the daemon passes on to its own log, with the time.
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_max_level(tracing::Level::INFO)
        .with_ansi(false)
        .with_target(false)
        .without_time()
        .init();
    signer_driver::run(|setup: Setup| {
        let config = Pkcs11Config::from_json(setup.options).map_err(|e| e.device(&setup.backend))?;
        let backend = Pkcs11Backend::new(&config, setup.backend, setup.pins)?.last_resort(|| {
            // What is being answered now is answered; the daemon gives the rest to the next process.
            std::thread::spawn(|| {
                std::thread::sleep(Duration::from_millis(20));
                std::process::exit(EXIT_HOPELESS);
            });
        });
        Ok(Arc::new(backend) as Arc<dyn Backend>)
    })
}

/// EX_TEMPFAIL
const EXIT_HOPELESS: i32 = 75;

fn show(module: &str, print: impl Fn(&[TokenInfo])) -> ExitCode {
    match list_tokens(Path::new(module)) {
        Ok(tokens) => {
            print(&tokens);
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("signerd-pkcs11: {e}");
            ExitCode::FAILURE
        }
    }
}

fn print_text(tokens: &[TokenInfo]) {
    if tokens.is_empty() {
        println!("The module shows no token.");
    }
    for token in tokens {
        println!("token   {}", token.label);
        println!("serial  {}", token.serial);
        println!("model   {} {}", token.manufacturer, token.model);
        println!("flags   {}\n", token.flags.join(" "));
    }
}

fn print_json(tokens: &[TokenInfo]) {
    println!("{}", serde_json::json!({ "tokens": tokens }));
}
