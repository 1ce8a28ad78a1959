//! Hot-plug: a thread that sleeps until something happens in the readers.

use std::time::Duration;

use pcsc::{Context, PNP_NOTIFICATION, ReaderState, Scope, State};

use crate::{device::Device, find};

/// How long until the service is looked for again.
const RETRY: Duration = Duration::from_millis(250);
/// How long it sleeps at most: should a change be missed, it is seen then.
const NAP: Duration = Duration::from_secs(30);

/// Events that follow each other closely are looked at together.
const REST: Duration = Duration::from_millis(10);

/// Starts the thread. It ends with the process.
pub(crate) fn start(device: &Device) -> std::io::Result<()> {
    let device = device.clone();
    std::thread::Builder::new().name("readers".into()).spawn(move || {
        loop {
            // It ends when the service does.
            let _ = watch(&device);
            device.look();
            std::thread::sleep(RETRY);
        }
    })?;
    Ok(())
}

fn watch(device: &Device) -> Result<(), pcsc::Error> {
    let context = Context::establish(Scope::System)?;
    let mut before = None;
    let mut plugging = State::UNAWARE;
    loop {
        let mut states = find::states(&context)?;
        // Whether somebody uses a card changes all the time; what counts is what is put in and taken out.
        let now: Vec<_> = states
            .iter()
            .map(|s| (s.name().to_owned(), s.event_count(), s.event_state().contains(State::PRESENT)))
            .collect();
        if before.as_ref() != Some(&now) {
            device.look();
            before = Some(now);
        }
        for state in &mut states {
            state.sync_current_state();
        }
        // Tells of readers that come and go.
        states.push(ReaderState::new(PNP_NOTIFICATION(), plugging));
        match context.get_status_change(NAP, &mut states) {
            Ok(()) | Err(pcsc::Error::Timeout | pcsc::Error::UnknownReader) => {}
            Err(code) => return Err(code),
        }
        if let Some(state) = states.last() {
            plugging = state.event_state() & !State::CHANGED;
        }
        // A card that is used by others makes many events.
        std::thread::sleep(REST);
    }
}
