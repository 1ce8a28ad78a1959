//! Answers that stay true for a while: public keys above all.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Remembers values by name, each for the same time.
pub struct Memory<V> {
    lifetime: Duration,
    known: Mutex<HashMap<String, (Instant, V)>>,
}

/// How many values are kept: beyond that, old ones go first.
const MOST: usize = 10_000;

impl<V: Clone> Memory<V> {
    /// Remembers each value for so long; zero remembers nothing.
    pub fn new(lifetime: Duration) -> Self {
        Self { lifetime, known: Mutex::default() }
    }

    /// A value that was remembered and is still good.
    pub fn recall(&self, name: &str) -> Option<V> {
        let known = self.known();
        let (since, value) = known.get(name)?;
        (since.elapsed() < self.lifetime).then(|| value.clone())
    }

    /// A value that was remembered, however long ago: to compare with.
    pub fn last(&self, name: &str) -> Option<V> {
        self.known().get(name).map(|(_, value)| value.clone())
    }

    /// Remembers a value from now on.
    pub fn remember(&self, name: &str, value: V) {
        let mut known = self.known();
        if known.len() >= MOST && !known.contains_key(name) {
            let lifetime = self.lifetime;
            known.retain(|_, (since, _)| since.elapsed() < lifetime);
            if known.len() >= MOST
                && let Some(oldest) =
                    known.iter().min_by_key(|(_, (since, _))| *since).map(|(n, _)| n.clone())
            {
                known.remove(&oldest);
            }
        }
        known.insert(name.to_owned(), (Instant::now(), value));
    }

    /// Forgets a value.
    pub fn forget(&self, name: &str) {
        self.known().remove(name);
    }

    /// Forgets every value whose name begins like that.
    pub fn forget_all(&self, prefix: &str) {
        self.known().retain(|name, _| !name.starts_with(prefix));
    }

    fn known(&self) -> MutexGuard<'_, HashMap<String, (Instant, V)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_good_for_its_lifetime() {
        let memory = Memory::new(Duration::from_millis(50));
        memory.remember("a", 1);
        assert_eq!((memory.recall("a"), memory.recall("b")), (Some(1), None));
        std::thread::sleep(Duration::from_millis(60));
        assert_eq!((memory.recall("a"), memory.last("a")), (None, Some(1)));
        memory.forget_all("a");
        assert_eq!(memory.last("a"), None);
    }

    #[test]
    fn it_does_not_grow_without_end() {
        let memory = Memory::new(Duration::from_hours(1));
        for n in 0..=MOST {
            memory.remember(&n.to_string(), n);
        }
        assert_eq!(memory.known().len(), MOST);
        assert_eq!(memory.recall(&MOST.to_string()), Some(MOST));
    }
}
