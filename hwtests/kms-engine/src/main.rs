//! `kms-engine`: an engine as a program of its own, for clients in other languages and for trying things out.

use std::{io::Write, path::PathBuf};

use clap::Parser;
use hwtests_kms_engine::{
    AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AZURE_CLIENT_ID, AZURE_CLIENT_SECRET, AZURE_TENANT, Engine,
    Options,
};

/// AWS KMS, Google Cloud KMS and Azure Key Vault to test against, on 127.0.0.1.
#[derive(Parser)]
struct Arguments {
    /// The port for plain HTTP (AWS, Google); 0 for any.
    #[arg(long, default_value_t = 0)]
    port: u16,
    /// The port for TLS (Azure, and the others too); 0 for any.
    #[arg(long, default_value_t = 0)]
    tls_port: u16,
    /// The folder where the test CA (ca.pem) and Google's credentials (google.json) are written.
    #[arg(long)]
    directory: PathBuf,
}

fn main() -> std::io::Result<()> {
    let arguments = Arguments::parse();
    let engine = Engine::start_on(Options { port: arguments.port, tls_port: arguments.tls_port })?;
    let ca = arguments.directory.join("ca.pem");
    let google = arguments.directory.join("google.json");
    std::fs::write(&ca, engine.ca_pem())?;
    std::fs::write(&google, engine.google_service_account())?;
    // A line of JSON: whoever started it reads it, and knows that it is up.
    let line = serde_json::json!({
        "url": engine.url(),
        "tls_url": engine.tls_url(),
        "ca": ca,
        "google_credentials": google,
        "aws_access_key_id": AWS_ACCESS_KEY_ID,
        "aws_secret_access_key": AWS_SECRET_ACCESS_KEY,
        "azure_tenant": AZURE_TENANT,
        "azure_client_id": AZURE_CLIENT_ID,
        "azure_client_secret": AZURE_CLIENT_SECRET,
    });
    println!("{line}");
    std::io::stdout().flush()?;
    loop {
        std::thread::park();
    }
}
