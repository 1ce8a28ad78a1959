//! A virtual PIV card: the PIV application of NIST SP 800-73 with Yubico's extensions, in software, behind the virtual reader
//! of the vsmartcard project. Test equipment: its keys lie in plain memory, and it is never part of a shipped program.
//!
//! [`Card`] is the card itself: bytes in, bytes out. [`VirtualCard`] is one in a reader, with a finger that touches it, a hand
//! that pulls it out, and faults. [`Pcscd`] is the reader: a `pcscd` of the test's own, which no other program can reach.
//!
//! ```no_run
//! # use hwtests_piv_card::{CardOptions, Pcscd, VirtualCard};
//! let pcscd = Pcscd::start()?;
//! let card = VirtualCard::start(pcscd.slot(0), CardOptions::new(12_345_678, "5.7.1".parse()?))?;
//! pcscd.wait_for_cards(1)?;
//! let listing = pcscd.command("yubico-piv-tool").args(["-a", "status"]).output()?;
//! card.touch();
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod algorithm;
mod apdu;
mod card;
mod control;
mod der;
mod firmware;
mod keys;
mod other_applets;
mod pcscd;
mod piv;
mod rsa;
mod saved;
mod tlv;
mod virtual_card;
mod vpcd;
mod x509;

pub use algorithm::{Algorithm, PinPolicy, TouchPolicy};
pub use apdu::{Command, Malformed, Response, Status};
pub use card::{Card, Finger, NoFinger, TOUCH_TIME};
pub use control::serve as serve_control;
pub use firmware::{Firmware, UnknownFirmware};
pub use pcscd::{Pcscd, READER_NAME};
pub use piv::Counters;
pub use tlv::Tlv;
pub use virtual_card::{CardOptions, CardState, Fault, FaultKind, VirtualCard};
pub use vpcd::Slot;
pub use x509::{attestation_root_der, attestation_root_pem};
