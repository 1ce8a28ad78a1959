//! `signerd`: see the library.

#![allow(unsafe_code)] // one option of the allocator

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h, which the binding does not name.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

fn main() -> std::process::ExitCode {
    // Milliseconds until freed memory goes back to the system. By default a burst of long messages stays resident,
    // several times over.
    // SAFETY: the option exists in the linked version (its neighbours 14 and 16 are the binding's own), and options may
    // be set at any time from one thread.
    unsafe { libmimalloc_sys::mi_option_set(PURGE_DELAY, 1) };
    signerd::main()
}
