//! `piv-card`: the virtual card as a program, for tests that are no Rust programs and for trying things out.

use std::{
    fs, io, net::SocketAddr, os::unix::net::UnixListener, path::PathBuf, process::ExitCode, sync::Arc,
};

use clap::Parser;
use hwtests_piv_card::{CardOptions, Firmware, Slot, VirtualCard, attestation_root_pem, serve_control};

/// A virtual PIV card with Yubico's extensions, in vsmartcard's virtual reader. Test equipment: its keys are worth nothing.
#[derive(Parser)]
struct Options {
    /// Where the virtual reader listens; the card waits until it is there.
    #[arg(long, default_value = "127.0.0.1:35963")]
    vpcd: SocketAddr,
    /// The card's serial number.
    #[arg(long, default_value_t = 12_345_678)]
    serial: u32,
    /// The firmware it has: 4.3.5, 5.2.7, 5.4.3, 5.7.1.
    #[arg(long, default_value = "5.7.1")]
    firmware: Firmware,
    /// A Unix socket for touches, removals and faults, one JSON object a line: {"do":"touch"}.
    #[arg(long)]
    control: Option<PathBuf>,
    /// The file that the card is kept in; it is made when it is not there.
    #[arg(long)]
    state: Option<PathBuf>,
    /// Print the root of the card's attestations, and end.
    #[arg(long)]
    print_root: bool,
}

fn main() -> ExitCode {
    let options = Options::parse();
    if options.print_root {
        print!("{}", attestation_root_pem());
        return ExitCode::SUCCESS;
    }
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("piv-card: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> io::Result<()> {
    let card = CardOptions { serial: options.serial, firmware: options.firmware, state: options.state };
    let card = Arc::new(VirtualCard::start(Slot::at(options.vpcd), card)?);
    let Some(path) = options.control else {
        loop {
            std::thread::park();
        }
    };
    let _ = fs::remove_file(&path);
    let listener = UnixListener::bind(&path)
        .map_err(|e| io::Error::other(format!("{} cannot be listened on: {e}", path.display())))?;
    let outcome = serve_control(&listener, &card);
    let _ = fs::remove_file(&path);
    outcome
}
