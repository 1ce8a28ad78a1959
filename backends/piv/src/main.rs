//! The driver process for PIV cards. signerd starts it, with a socket as its standard input.

use std::{process::ExitCode, sync::Arc};

use signer_core::Backend;
use signer_driver::Setup;
use signer_piv::{CardInfo, PivBackend, PivConfig, list_cards};

const USAGE: &str = "\
signerd-piv gives signerd the keys of a YubiKey or another PIV card. signerd starts it by itself; there is no need to
call it.

Usage: signerd-piv                                  serve the daemon that started this process
       signerd-piv list-cards [--output text|json]  show the cards that are plugged in
       signerd-piv --help | --version";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => serve(),
        ["list-cards"] | ["list-cards", "--output", "text"] => show(print_text),
        ["list-cards", "--output", "json"] => show(print_json),
        ["--help" | "-h" | "help"] => {
            println!("{USAGE}");
            ExitCode::SUCCESS
        }
        ["--version" | "-V"] => {
            println!("signerd-piv {}", env!("CARGO_PKG_VERSION"));
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
        let config = PivConfig::from_json(setup.options).map_err(|e| e.device(&setup.backend))?;
        let backend =
            PivBackend::new(&config, &setup.backend, setup.pins).map_err(|e| e.device(&setup.backend))?;
        Ok(Arc::new(backend) as Arc<dyn Backend>)
    })
}

fn show(print: impl Fn(&[CardInfo])) -> ExitCode {
    match list_cards() {
        Ok(cards) => {
            print(&cards);
            ExitCode::SUCCESS
        }
        Err(e) => {
            eprintln!("signerd-piv: {e}");
            ExitCode::FAILURE
        }
    }
}

fn print_text(cards: &[CardInfo]) {
    if cards.is_empty() {
        println!("There is no PIV card.");
    }
    for card in cards {
        println!("serial    {}", card.serial);
        println!("model     {} {}", card.model, card.firmware);
        println!("reader    {}\n", card.reader);
    }
}

fn print_json(cards: &[CardInfo]) {
    println!("{}", serde_json::json!({ "cards": cards }));
}
