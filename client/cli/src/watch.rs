//! `signer watch`: what happens to backends and keys, as it happens.

use clap::Args;
use serde_json::json;
use signer_core::{BackendName, Event};
use signerd_api::{DaemonEvent, Happening};

use crate::{
    context::Context,
    failure::{Exit, Failure, error_json},
};

/// Print events as they happen
///
/// Devices that come and go, PINs that are needed, driver processes that are started again, keys that are made and
/// deleted. Ends when the daemon does, or with Ctrl-C.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer watch
  signer watch hsm --output json | jq .event")]
pub(crate) struct Watch {
    /// Only events of this backend
    #[arg(value_name = "BACKEND")]
    backend: Option<BackendName>,
}

impl Watch {
    pub(crate) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        let mut events = context.client().watch(self.backend.as_ref()).await?;
        context.note("watching; Ctrl-C ends it");
        while let Some(event) = events.next().await {
            let event = event?;
            if event.lost > 0 {
                context.note(format_args!("note: {} events came too fast and are missing", event.lost));
            }
            context.answer(format_args!("{}\n", line(&event)), &object(&event));
        }
        Ok(Exit::Done)
    }
}

fn line(event: &DaemonEvent) -> String {
    let seconds = event.time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let time = crate::status::utc(seconds.as_secs());
    let backend = event.backend.as_deref().unwrap_or("signerd");
    let more = match &event.happening {
        Happening::Backend(Event::Down(error)) => format!(": {error}"),
        Happening::Backend(Event::PinRequired(prompt)) => {
            let tries = prompt.tries_left.map(|n| format!(", {n} tries left")).unwrap_or_default();
            format!(": {}{tries}; run `signer keys unlock {backend}`", prompt.device)
        }
        Happening::Backend(Event::TouchRequired { prompt, caller, purpose }) => format!(
            ": touch {} within {:?}: {caller} asks {} for {purpose}",
            prompt.device, prompt.timeout, prompt.key
        ),
        Happening::Backend(Event::TouchEnded { key }) => format!(" {key}"),
        Happening::Backend(Event::DriverRestarting { reason, backoff }) => {
            format!(" in {backoff:?}: {reason}")
        }
        Happening::KeyCreated(key) | Happening::KeyDeleted(key) | Happening::KeyRotated(key) => {
            format!(" {key}")
        }
        _ => String::new(),
    };
    format!("{time} {backend} {}{more}", event.happening.name())
}

fn object(event: &DaemonEvent) -> serde_json::Value {
    let micros = event.time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_micros();
    let mut object = json!({
        "time_unix_us": micros as u64,
        "backend": event.backend,
        "event": event.happening.name(),
        "lost": event.lost,
    });
    match &event.happening {
        Happening::Backend(Event::Down(error)) => object["error"] = error_json(error),
        Happening::Backend(Event::PinRequired(prompt)) => {
            object["device"] = json!(prompt.device);
            object["key"] = json!(prompt.key);
            object["tries_left"] = json!(prompt.tries_left);
        }
        Happening::Backend(Event::TouchRequired { prompt, caller, purpose }) => {
            object["device"] = json!(prompt.device);
            object["key"] = json!(prompt.key);
            object["timeout_ms"] = json!(prompt.timeout.as_millis() as u64);
            object["caller"] = json!(caller);
            object["purpose"] = json!(purpose);
        }
        Happening::Backend(Event::TouchEnded { key }) => object["key"] = json!(key),
        Happening::Backend(Event::DriverRestarting { reason, backoff }) => {
            object["reason"] = json!(reason);
            object["backoff_ms"] = json!(backoff.as_millis() as u64);
        }
        Happening::KeyCreated(key) | Happening::KeyDeleted(key) | Happening::KeyRotated(key) => {
            object["key"] = json!(key);
        }
        _ => {}
    }
    object
}
