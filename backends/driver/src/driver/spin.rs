//! Waiting for the next request: spinning for a moment where that pays, sleeping otherwise.

use std::{
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
};

/// Spins before it sleeps while requests come in quick succession. A wake-up costs a sleeping process some 25 to 50
/// microseconds, as much as a signature; a spin that finds nothing costs the processor the spin.
pub(super) struct Spin {
    limit: Duration,
    /// Whether the last wait was one that a spin would have covered.
    worth_it: bool,
}

impl Spin {
    /// Spins for at most `limit`; zero for never.
    pub(super) fn new(limit: Duration) -> Self {
        Self { limit, worth_it: true }
    }

    /// Receives into `buffer`; 0 at the end of the stream.
    pub(super) fn read(&mut self, stream: &UnixStream, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.limit.is_zero() {
            return Ok(recv(stream, buffer, RecvFlags::empty())?.1);
        }
        let start = Instant::now();
        if self.worth_it {
            while start.elapsed() < self.limit {
                match recv(stream, &mut *buffer, RecvFlags::DONTWAIT) {
                    Ok((_, n)) => return Ok(n),
                    // Whoever else wants this processor goes first: it may be the very caller that is waited for.
                    Err(Errno::AGAIN) => std::thread::yield_now(),
                    Err(e) => return Err(e.into()),
                }
            }
        }
        let (_, n) = recv(stream, buffer, RecvFlags::empty())?;
        self.worth_it = start.elapsed() <= 2 * self.limit;
        Ok(n)
    }
}
