//! As much of a YubiKey's management and OTP applets as programs ask before they talk to the PIV applet.

use crate::{
    apdu::{Command, Status},
    firmware::Firmware,
    tlv::encode,
};

pub(crate) const MANAGEMENT_AID: [u8; 8] = [0xA0, 0, 0, 5, 0x27, 0x47, 0x11, 0x17];
pub(crate) const OTP_AID: [u8; 8] = [0xA0, 0, 0, 5, 0x27, 0x20, 1, 1];

/// PIV is the only application that this card has.
const CAPABILITIES: [u8; 2] = [0, 0x10];

pub(crate) fn management_select(firmware: Firmware) -> Vec<u8> {
    format!("Virtual mgr - FW version {firmware}").into_bytes()
}

/// READ CONFIG: one page of what the device is.
pub(crate) fn management(command: &Command, serial: u32, firmware: Firmware) -> Result<Vec<u8>, Status> {
    match (command.instruction, command.p1) {
        (0x1D, 0) => {
            let fields = [
                encode(0x01, &CAPABILITIES), // there over USB
                encode(0x02, &serial.to_be_bytes()),
                encode(0x03, &CAPABILITIES), // switched on over USB
                encode(0x04, &[1]),          // a keychain with USB-A
                encode(0x05, &firmware.bytes()),
                encode(0x0A, &[0]), // the configuration is not locked
            ]
            .concat();
            Ok([&[fields.len() as u8][..], &fields].concat())
        }
        (0x1D, _) => Err(Status::WRONG_PARAMETERS),
        _ => Err(Status::UNKNOWN_INSTRUCTION),
    }
}

/// Version, programming sequence 0, no slot configured.
pub(crate) fn otp_status(firmware: Firmware) -> Vec<u8> {
    [&firmware.bytes()[..], &[0, 0, 0]].concat()
}

pub(crate) fn otp(command: &Command, serial: u32, firmware: Firmware) -> Result<Vec<u8>, Status> {
    match (command.instruction, command.p1) {
        (0x01, 0x10) => Ok(serial.to_be_bytes().to_vec()),
        (0x03, 0) => Ok(otp_status(firmware)),
        _ => Err(Status::UNKNOWN_INSTRUCTION),
    }
}
