//! `signer watch`: what happens to backends and keys, as it happens.

use clap::Args;
use serde_json::json;
use signer_core::{BackendName, Event};
use signerd_api::{DaemonEvent, Happening, PinEnd, Prompts};

use crate::{
    context::Context,
    failure::{Exit, Failure, error_json},
    prompts::{self, Prompter, ended_by_signal},
};

/// Print events as they happen
///
/// Devices that come and go, PINs and touches that are waited for, driver processes that are started again, keys that are made
/// and deleted. Ends when the daemon does, or with Ctrl-C.
///
/// With --answer it also asks for the PINs that calls of others wait for, a build's for one, as far as you may unlock these
/// backends: at the terminal, or through a pinentry program. Whoever says no there says it to all who wait.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  signer watch
  signer watch hsm --output json | jq .event
  signer watch --answer yubikey
  signer watch --answer --quiet --pinentry pinentry-gnome3     in a desktop session")]
pub(crate) struct Watch {
    /// Only events of this backend
    #[arg(value_name = "BACKEND")]
    backend: Option<BackendName>,
    /// Ask for PINs that others wait for, and give them to the daemon
    #[arg(long)]
    answer: bool,
}

impl Watch {
    pub(crate) async fn run(&self, context: &Context) -> Result<Exit, Failure> {
        if self.answer {
            return self.answer(context).await;
        }
        let mut events = context.client().watch(self.backend.as_ref()).await?;
        context.note("watching; Ctrl-C ends it");
        while let Some(event) = events.next().await {
            print(&event?, context);
        }
        Ok(Exit::Done)
    }

    async fn answer(&self, context: &Context) -> Result<Exit, Failure> {
        let Some(means) = context.means() else {
            let why = if context.asks_nothing() {
                "--no-input forbids to ask"
            } else {
                "there is neither a terminal nor a pinentry program"
            };
            return Err(Failure::usage(format!("there is no way to ask for a PIN: {why}")));
        };
        let client = context.client();
        let events = client.watch_with(self.backend.as_ref(), Prompts::All).await?;
        context.note("watching, and asking for PINs; Ctrl-C ends it");
        let mut prompter = Prompter::new(means.clone(), client, Prompts::All, context);
        tokio::select! {
            ended = prompter.run(events, |event| if !context.is_quiet() { print(event, context) }) => ended?,
            failure = ended_by_signal() => return Err(failure),
        }
        Ok(Exit::Done)
    }
}

fn print(event: &DaemonEvent, context: &Context) {
    if event.lost > 0 {
        context.note(format_args!("note: {} events came too fast and are missing", event.lost));
    }
    context.answer(format_args!("{}\n", line(event)), &object(event));
}

fn line(event: &DaemonEvent) -> String {
    let seconds = event.time.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let time = signer_core::utc(seconds.as_secs());
    let backend = event.backend.as_deref().unwrap_or("signerd");
    let more = match &event.happening {
        Happening::Backend(Event::Down(error)) => format!(": {error}"),
        Happening::Backend(Event::PinRequired(prompt)) => {
            let tries = prompt.tries_left.map(|n| format!(", {n} tries left")).unwrap_or_default();
            format!(": {}{tries}; run `signer keys unlock {backend}`", prompt.device)
        }
        Happening::Backend(Event::TouchRequired { prompt, caller, purpose, label }) => format!(
            ": touch {} within {:?}: {caller} asks {} for {purpose}{}",
            prompt.device,
            prompt.timeout,
            prompt.key,
            label.as_ref().map(|l| format!(", {l}")).unwrap_or_default()
        ),
        Happening::PinRequest(request) => {
            let tries = request.tries_left.map(|n| format!(", {n} tries left")).unwrap_or_default();
            let refused = request.refused.as_ref().map(|r| format!("{r}; ")).unwrap_or_default();
            let askers: Vec<_> = request.askers.iter().map(prompts::asker).collect();
            format!(" {}: {refused}{}{tries}: {}", request.number, request.device, askers.join("; "))
        }
        Happening::PinRequestEnded { number, end } => {
            format!(" {number}: {}", end.map_or("over", PinEnd::name))
        }
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
        Happening::Backend(Event::TouchRequired { prompt, caller, purpose, label }) => {
            object["label"] = json!(label);
            object["device"] = json!(prompt.device);
            object["key"] = json!(prompt.key);
            object["timeout_ms"] = json!(prompt.timeout.as_millis() as u64);
            object["caller"] = json!(caller);
            object["purpose"] = json!(purpose);
        }
        Happening::Backend(Event::TouchEnded { key }) => object["key"] = json!(key),
        Happening::PinRequest(request) => {
            object["request"] = json!(request.number);
            object["device"] = json!(request.device);
            object["tries_left"] = json!(request.tries_left);
            object["timeout_ms"] = json!(request.timeout.as_millis() as u64);
            object["refused"] = json!(request.refused);
            object["askers"] = request
                .askers
                .iter()
                .map(|a| {
                    json!({
                        "caller": a.caller,
                        "operation": a.operation,
                        "key": a.key,
                        "purpose": a.purpose,
                        "label": a.label,
                    })
                })
                .collect();
        }
        Happening::PinRequestEnded { number, end } => {
            object["request"] = json!(number);
            object["outcome"] = json!(end.map(PinEnd::name));
        }
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
