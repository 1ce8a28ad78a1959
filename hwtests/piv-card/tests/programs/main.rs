//! Unmodified programs of others use the virtual card as they use a YubiKey. Each test has a `pcscd` of its own.

mod control;
mod opensc;
mod reader;
mod support;
mod ykcs11;
mod ykman;
mod yubico_piv_tool;
