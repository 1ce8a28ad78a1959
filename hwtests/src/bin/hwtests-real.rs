//! `hwtests/run --real`: the contract over what is plugged in.

use std::{
    io::{BufRead, IsTerminal, Write},
    path::PathBuf,
    process::ExitCode,
    sync::Arc,
};

use clap::Parser;
use hwtests::real::{Options, Real, Spec};

/// Run the contract that every backend must pass over a real device or service, and ask before anything is written
#[derive(Parser)]
#[command(
    name = "hwtests/run --real",
    after_help = "\
Examples:
  hwtests/run --real yubikey:12345678 --pin-file pin --setting 'management_key_file = \"/root/mgm\"'
  TCTI=device:/dev/tpmrm0 hwtests/run --real tpm
  hwtests/run --real pkcs11:/opt/vendor/p11.so --token test --pin-file pin
  AWS_PROFILE=test hwtests/run --real awskms:arn:aws:kms:eu-west-1:111122223333:key/1234
  hwtests/run --real gcpkms:projects/P/locations/europe-west3/keyRings/test --yes
  VAULT_ADDR=… VAULT_TOKEN=… hwtests/run --real hashivault: every_algorithm_signs

Credentials are found as the makers' own tools find them. Exit codes: 0 all passed, 1 a check failed, 2 nothing was done."
)]
struct Arguments {
    /// yubikey:SERIAL, tpm, pkcs11:MODULE, awskms: or awskms:ARN, gcpkms:RING, azurekms:VAULT, hashivault:
    spec: Spec,
    /// Only checks whose name has one of these in it
    filters: Vec<String>,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// The file with the device's PIN
    #[arg(long, value_name = "FILE")]
    pin_file: Option<PathBuf>,
    /// The label of the PKCS#11 token
    #[arg(long, value_name = "LABEL")]
    token: Option<String>,
    /// One more line of the backend's table: 'endpoint = "https://…"'
    #[arg(long, value_name = "LINE")]
    setting: Vec<String>,
    /// Also run the checks that spend tries of the PIN
    #[arg(long)]
    wrong_pins: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let options = Options {
        pin_file: arguments.pin_file,
        token: arguments.token,
        settings: arguments.setting,
        wrong_pins: arguments.wrong_pins,
    };
    let mut real = match Real::start(arguments.spec, options).await {
        Ok(real) => real,
        Err(error) => {
            eprintln!("hwtests/run: {error}");
            return ExitCode::from(2);
        }
    };
    let info = real.info();
    let about: Vec<_> = [&info.device, &info.model, &info.firmware, &info.serial]
        .into_iter()
        .filter(|text| !text.is_empty())
        .map(String::as_str)
        .collect();
    println!("{}: {}", info.kind, about.join(", "));
    for sentence in real.consequences() {
        println!("{sentence}");
    }
    let (checks, left_out) = real.checks(&arguments.filters);
    if checks.is_empty() {
        eprintln!("hwtests/run: no check has a name with {} in it", arguments.filters.join(" or "));
        return ExitCode::from(2);
    }
    if !arguments.yes && !agreed() {
        return ExitCode::from(2);
    }
    if let Err(error) = real.learn().await {
        eprintln!("hwtests/run: {error}");
        return ExitCode::from(2);
    }
    let real = Arc::new(real);
    let mut failed = Vec::new();
    for check in &checks {
        print!("test {} ... ", check.name);
        let _ = std::io::stdout().flush();
        match real.check(check).await {
            Ok(()) => println!("ok"),
            Err(failure) => {
                println!("FAILED");
                failed.push((check.name, failure));
            }
        }
    }
    for (name, reason) in &left_out {
        println!("left out {name}: {reason}");
    }
    for (name, failure) in &failed {
        println!("\n{name}: {failure}");
    }
    println!(
        "\n{} passed, {} failed, {} left out",
        checks.len() - failed.len(),
        failed.len(),
        left_out.len()
    );
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether the person at the terminal says yes.
fn agreed() -> bool {
    let input = std::io::stdin();
    if !input.is_terminal() {
        eprintln!("hwtests/run: nobody can be asked, so nothing was written: say --yes");
        return false;
    }
    print!("Go on? Type yes: ");
    let _ = std::io::stdout().flush();
    let mut answer = String::new();
    let agreed = input.lock().read_line(&mut answer).is_ok() && answer.trim() == "yes";
    if !agreed {
        eprintln!("hwtests/run: nothing was written");
    }
    agreed
}
