//! How fast a card signs without a driver or daemon in between: `card_throughput SLOT PIN_FILE [SECONDS]`, with the only card
//! that is there. The same signatures through the daemon are what this is compared with.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use signer_core::{
    Backend, BoxFuture, Error, KeyName, KeySelector, Pin, PinLease, PinOutcome, PinPrompt, PinSource, Result,
    SignRequest,
};
use signer_piv::{PivBackend, PivConfig};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (slot, pin_file, seconds) = match &arguments[..] {
        [slot, pin_file] => (slot, pin_file, 5),
        [slot, pin_file, seconds] => (slot, pin_file, seconds.parse().unwrap_or(5)),
        _ => return Err(Error::bad_request("usage: card_throughput SLOT PIN_FILE [SECONDS]")),
    };
    let pins = Arc::new(FromFile(read(Path::new(pin_file))?));
    let backend = PivBackend::new(&PivConfig::default(), "card", pins)?;
    let runtime =
        tokio::runtime::Builder::new_current_thread().build().map_err(|e| Error::internal(e.to_string()))?;
    runtime.block_on(async {
        let signer = backend.open(&KeySelector::Name(KeyName::label(slot.as_str())?)).await?;
        let mut times = Vec::new();
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(seconds) {
            let began = Instant::now();
            let message = format!("message {}", times.len());
            signer.sign(SignRequest::message(signer.info().default_algorithm(), message)).await?;
            times.push(began.elapsed());
        }
        let rate = times.len() as f64 / start.elapsed().as_secs_f64();
        times.sort();
        println!(
            "{} {slot} {}: {rate:.1} signatures/s, p50 {:.2?}, p99 {:.2?}",
            backend.describe().await?.device,
            signer.info().public_key.key_type(),
            times[times.len() / 2],
            times[times.len() * 99 / 100]
        );
        Ok(())
    })
}

fn read(path: &Path) -> Result<Pin> {
    let text = std::fs::read_to_string(path)
        .map_err(|e| Error::bad_request(format!("{} cannot be read", path.display())).vendor(e))?;
    Pin::new(text)
}

/// A PIN that was right before: this program is for measuring.
struct FromFile(Pin);
struct Lease(Pin);

impl PinSource for FromFile {
    fn lease<'a>(&'a self, _: &'a PinPrompt) -> BoxFuture<'a, Result<Box<dyn PinLease>>> {
        Box::pin(async { Ok(Box::new(Lease(self.0.clone())) as Box<dyn PinLease>) })
    }
}

impl PinLease for Lease {
    fn pin(&self) -> &Pin {
        &self.0
    }
    fn may_use_last_try(&self) -> bool {
        false
    }
    fn report(self: Box<Self>, outcome: PinOutcome) {
        if let PinOutcome::Refused(error) = outcome {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}
