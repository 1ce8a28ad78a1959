//! Memory that was freed goes back to the system.
#![allow(unsafe_code)] // calls of the allocator

use libmimalloc_sys::{mi_collect, mi_option_set, mi_option_t};

/// `mi_option_purge_delay` of mimalloc.h, which the binding does not name.
const PURGE_DELAY: mi_option_t = 15;

/// Sets how long freed memory is kept: for a millisecond. By default a burst of long messages stays resident, several
/// times over; without any delay every request would pay for it.
pub(crate) fn configure() {
    // SAFETY: the option exists in the linked version (its neighbours 14 and 16 are the binding's own), and options may
    // be set at any time from one thread.
    unsafe { mi_option_set(PURGE_DELAY, 1) };
}

/// Gives back at once what this thread has freed. The allocator itself looks at its delay only when it is called again,
/// which in an idle daemon is never: the 32 MiB of an opened key file would stay.
pub(crate) fn give_back() {
    // SAFETY: it may be called at any time from any thread.
    unsafe { mi_collect(true) };
}
