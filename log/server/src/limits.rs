//! What one caller, and all together, may ask for.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

/// So many requests a second by each address, with as many more at once.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: f64,
    callers: Mutex<HashMap<IpAddr, (f64, Instant)>>,
}

/// Addresses that are remembered; those that have been quiet for long are forgotten first.
const REMEMBERED: usize = 100_000;

impl Rate {
    /// `None` for no limit.
    pub(crate) fn new(per_second: Option<u32>) -> Self {
        Self { per_second: per_second.map_or(f64::INFINITY, f64::from), callers: Mutex::default() }
    }

    /// Whether one more is fine now; otherwise when.
    pub(crate) fn take(&self, caller: IpAddr) -> Result<(), Duration> {
        if self.per_second.is_infinite() {
            return Ok(());
        }
        let now = Instant::now();
        let most = self.per_second.max(1.0) * 2.0;
        let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
        if callers.len() >= REMEMBERED {
            callers.retain(|_, (left, at)| *left + at.elapsed().as_secs_f64() * self.per_second < most);
            if callers.len() >= REMEMBERED {
                callers.clear();
            }
        }
        let (left, at) = callers.entry(caller).or_insert((most, now));
        *left = (*left + now.duration_since(*at).as_secs_f64() * self.per_second).min(most);
        *at = now;
        if *left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - *left) / self.per_second));
        }
        *left -= 1.0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_caller_has_its_own_limit() {
        let rate = Rate::new(Some(10));
        let (one, other) = (IpAddr::from([1, 1, 1, 1]), IpAddr::from([2, 2, 2, 2]));
        assert_eq!((0..100).filter(|_| rate.take(one).is_ok()).count(), 20);
        let wait = rate.take(one).unwrap_err();
        assert!(wait <= Duration::from_millis(100));
        assert!(rate.take(other).is_ok());
        std::thread::sleep(wait);
        assert!(rate.take(one).is_ok());
        assert!((0..1000).all(|_| Rate::new(None).take(one).is_ok()));
    }
}
