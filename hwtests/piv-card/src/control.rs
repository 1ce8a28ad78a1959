//! The control socket: one JSON object a line is asked, one JSON object a line is answered.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::{UnixListener, UnixStream},
    sync::Arc,
    thread,
    time::Duration,
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::virtual_card::{Fault, FaultKind, VirtualCard};

/// Serves a control socket until someone says `{"do":"quit"}`.
pub fn serve(listener: &UnixListener, card: &Arc<VirtualCard>) -> io::Result<()> {
    let (quit, quitted) = std::sync::mpsc::channel();
    let listener = listener.try_clone()?;
    let card = card.clone();
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (card, quit) = (card.clone(), quit.clone());
            thread::spawn(move || {
                if converse(&stream, &card).is_ok_and(|wants_end| wants_end) {
                    let _ = quit.send(());
                }
            });
        }
    });
    quitted.recv().map_err(io::Error::other)
}

/// True when the other side wants the program to end.
fn converse(stream: &UnixStream, card: &VirtualCard) -> io::Result<bool> {
    for line in BufReader::new(stream).lines() {
        let order = serde_json::from_str(&line?);
        let quit = matches!(order, Ok(Order::Quit));
        let answer = match order {
            Ok(order) => follow(order, card),
            Err(error) => json!({ "ok": false, "error": error.to_string() }),
        };
        let mut stream = stream;
        stream.write_all(format!("{answer}\n").as_bytes())?;
        if quit {
            return Ok(true);
        }
    }
    Ok(false)
}

#[derive(Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
enum Order {
    /// A finger.
    Touch,
    /// Touches come by themselves after so long; null ends this.
    AutoTouch {
        ms: Option<u64>,
    },
    Remove,
    Insert,
    Reset,
    Swap {
        serial: u32,
    },
    Fault {
        kind: Kind,
        #[serde(default = "once")]
        count: u32,
        ms: Option<u64>,
        sw: Option<String>,
        ins: Option<String>,
    },
    Heal,
    Set {
        pin_tries: Option<u8>,
        puk_tries: Option<u8>,
    },
    State,
    Quit,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Garbage,
    Short,
    Cut,
    Slow,
    Status,
    Remove,
    RemoveAfter,
}

fn once() -> u32 {
    1
}

fn follow(order: Order, card: &VirtualCard) -> Value {
    match order {
        Order::Touch => return json!({ "ok": true, "awaited": card.touch() }),
        Order::State => {
            let mut state = serde_json::to_value(card.state()).unwrap_or_default();
            state["ok"] = true.into();
            return state;
        }
        Order::AutoTouch { ms } => card.touch_by_itself(ms.map(Duration::from_millis)),
        Order::Remove => card.remove(),
        Order::Insert => card.insert(),
        Order::Reset => card.reset(),
        Order::Swap { serial } => card.swap(serial),
        Order::Heal => card.heal(),
        Order::Set { pin_tries, puk_tries } => card.set_tries_left(pin_tries, puk_tries),
        Order::Fault { kind, count, ms, sw, ins } => match fault(&kind, ms, sw.as_deref()) {
            Some(kind) => {
                let instruction = match ins.as_deref().map(|ins| u8::from_str_radix(ins, 16)) {
                    None => None,
                    Some(Ok(ins)) => Some(ins),
                    Some(Err(_)) => return json!({ "ok": false, "error": "\"ins\" is not a byte in hex" }),
                };
                card.fault(Fault { kind, count, instruction });
            }
            None => {
                return json!({ "ok": false, "error": "slow wants \"ms\", status wants \"sw\" in hex" });
            }
        },
        Order::Quit => {}
    }
    json!({ "ok": true })
}

fn fault(kind: &Kind, ms: Option<u64>, sw: Option<&str>) -> Option<FaultKind> {
    Some(match kind {
        Kind::Garbage => FaultKind::Garbage,
        Kind::Short => FaultKind::Short,
        Kind::Cut => FaultKind::Cut,
        Kind::Slow => FaultKind::Slow(Duration::from_millis(ms?)),
        Kind::Status => FaultKind::Status(u16::from_str_radix(sw?, 16).ok()?),
        Kind::Remove => FaultKind::Remove,
        Kind::RemoveAfter => FaultKind::RemoveAfter,
    })
}
