//! Where a PIN is kept: a page of memory of its own.
//!
//! The page is locked, so that it is never written to swap; it is left out of core dumps and not inherited by a forked
//! child; and it is wiped before it is given back. It protects against what is left behind (swap, dumps, memory that is
//! used again), not against somebody who reads the memory of the running daemon: the kernel keeps those out
//! (`PR_SET_DUMPABLE`), root excepted.

#![allow(unsafe_code)] // the pages are the kernel's

use std::{ptr::NonNull, sync::Arc};

use signer_core::Pin;
use zeroize::Zeroize;

/// A kept PIN. Cheap to clone.
#[derive(Clone)]
pub(super) struct Sealed(Arc<Store>);

enum Store {
    Page(Page),
    /// There was no page to be had.
    Heap(Pin),
}

impl Sealed {
    pub(super) fn new(pin: &Pin) -> Self {
        let page = Page::holding(pin.expose().as_bytes());
        Self(Arc::new(page.map_or_else(|| Store::Heap(pin.clone()), Store::Page)))
    }

    /// The PIN's characters. Whoever calls this must not copy them into anything that outlives the call.
    pub(super) fn expose(&self) -> &str {
        match &*self.0 {
            // It was a text when it was put there, and nobody writes to it.
            Store::Page(page) => std::str::from_utf8(page.bytes()).unwrap_or_default(),
            Store::Heap(pin) => pin.expose(),
        }
    }

    /// Whether it is this PIN.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.expose() == other.expose()
    }
}

/// Pages that hold one secret.
struct Page {
    start: NonNull<u8>,
    len: usize,
    mapped: usize,
}

// SAFETY: the memory belongs to this value alone, and is not written to while it can be reached.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

impl Page {
    fn holding(secret: &[u8]) -> Option<Self> {
        let page = rustix::param::page_size();
        let mapped = secret.len().max(1).div_ceil(page) * page;
        // SAFETY: an anonymous mapping at an address of the kernel's choice touches nothing that is there.
        let start = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                mapped,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return None;
        }
        let start = NonNull::new(start.cast::<u8>())?;
        // SAFETY: the range is the mapping that was just made. A kernel that may not lock it (RLIMIT_MEMLOCK) leaves it as
        // it is, and that is still better than the heap.
        unsafe {
            if libc::mlock(start.as_ptr().cast(), mapped) != 0 {
                tracing::debug!("a PIN's memory cannot be locked: {}", std::io::Error::last_os_error());
            }
            libc::madvise(start.as_ptr().cast(), mapped, libc::MADV_DONTDUMP);
            libc::madvise(start.as_ptr().cast(), mapped, libc::MADV_DONTFORK);
        }
        // SAFETY: the mapping is at least as long as the secret, writable, and new: it overlaps nothing.
        unsafe { std::ptr::copy_nonoverlapping(secret.as_ptr(), start.as_ptr(), secret.len()) };
        Some(Self { start, len: secret.len(), mapped })
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: so many bytes were written there, and the mapping lasts as long as this value.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, whole, and nobody else can reach it any more.
        unsafe {
            std::slice::from_raw_parts_mut(self.start.as_ptr(), self.mapped).zeroize();
            libc::munmap(self.start.as_ptr().cast(), self.mapped);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel says of the mapping at an address (proc(5), smaps): its flags, and kilobytes that are locked.
    fn flags(address: usize) -> (String, String) {
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let (mut inside, mut locked) = (false, String::new());
        for line in maps.lines() {
            if let Some((range, _)) = line.split_once(' ')
                && let Some((from, to)) = range.split_once('-')
                && let (Ok(from), Ok(to)) = (usize::from_str_radix(from, 16), usize::from_str_radix(to, 16))
            {
                inside = (from..to).contains(&address);
            }
            if inside && line.starts_with("Locked:") {
                line.clone_into(&mut locked);
            }
            if inside && line.starts_with("VmFlags:") {
                return (line.to_owned(), locked);
            }
        }
        panic!("there is no such mapping");
    }

    #[test]
    fn a_kept_pin_is_locked_and_in_no_core_dump() {
        let sealed = Sealed::new(&Pin::new("12345678".into()).unwrap());
        assert_eq!(sealed.expose(), "12345678");
        assert!(sealed.is(&Sealed::new(&Pin::new("12345678".into()).unwrap())));
        assert!(!sealed.is(&Sealed::new(&Pin::new("1234567".into()).unwrap())));
        let Store::Page(page) = &*sealed.0 else { panic!("there was no page") };
        let (flags, locked) = flags(page.start.as_ptr() as usize);
        for flag in ["lo", "dd", "dc"] {
            assert!(flags.split_whitespace().any(|f| f == flag), "{flag} is missing: {flags}");
        }
        assert!(!locked.contains(" 0 kB"), "{locked}");
    }

    #[test]
    fn a_long_passphrase_takes_several_pages() {
        let long = "x".repeat(4096);
        assert_eq!(Sealed::new(&Pin::new(long.clone()).unwrap()).expose(), long);
    }
}
