//! Denials that come too fast: somebody without a grant must not be able to fill the disk.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use super::Event;
use crate::identity::Identity;

/// So many denials of one user are recorded at once, and one more in each pause.
const AT_ONCE: u32 = 20;
const PAUSE: Duration = Duration::from_millis(200);
/// So many users are kept apart.
const USERS: usize = 1000;

/// The denials of late, by user.
#[derive(Default)]
pub(super) struct Denials(HashMap<Option<u32>, Bucket>);

struct Bucket {
    left: u32,
    filled: Instant,
    suppressed: u64,
    caller: Option<Arc<Identity>>,
}

impl Bucket {
    fn fill(&mut self, now: Instant) {
        let pauses = now.duration_since(self.filled).as_millis() / PAUSE.as_millis();
        let pauses = u32::try_from(pauses).unwrap_or(u32::MAX);
        if self.left.saturating_add(pauses) >= AT_ONCE {
            (self.left, self.filled) = (AT_ONCE, now);
        } else {
            self.left += pauses;
            self.filled += PAUSE * pauses;
        }
    }
}

impl Denials {
    /// Notes a denial. `None` if it is not recorded by itself, else how many before it were not.
    pub(super) fn note(&mut self, event: &Event) -> Option<u64> {
        self.note_at(event.caller.as_ref(), Instant::now())
    }

    fn note_at(&mut self, caller: Option<&Arc<Identity>>, now: Instant) -> Option<u64> {
        let user = caller.and_then(|c| c.uid());
        if self.0.len() >= USERS && !self.0.contains_key(&user) {
            self.0.retain(|_, bucket| bucket.suppressed > 0 || bucket.left < AT_ONCE);
        }
        let bucket = self.0.entry(user).or_insert_with(|| Bucket {
            left: AT_ONCE,
            filled: now,
            suppressed: 0,
            caller: caller.cloned(),
        });
        bucket.fill(now);
        if bucket.left == 0 {
            bucket.suppressed += 1;
            return None;
        }
        bucket.left -= 1;
        Some(std::mem::take(&mut bucket.suppressed))
    }

    /// Denials that were not recorded and that nothing after them tells, once a user has been quiet for a pause.
    pub(super) fn left_over(&mut self) -> Vec<(Option<Arc<Identity>>, u64)> {
        let now = Instant::now();
        let mut found = Vec::new();
        for bucket in self.0.values_mut() {
            bucket.fill(now);
            if bucket.suppressed > 0 && bucket.left > 1 {
                bucket.left -= 1;
                found.push((bucket.caller.clone(), std::mem::take(&mut bucket.suppressed)));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted_and_other_users_are_recorded() {
        let mut denials = Denials::default();
        let (flood, other) =
            (Arc::new(Identity::new(Some(1), vec![])), Arc::new(Identity::new(Some(2), vec![])));
        let now = Instant::now();
        let recorded = (0..1000).filter(|_| denials.note_at(Some(&flood), now).is_some()).count();
        assert_eq!(recorded, AT_ONCE as usize);
        assert_eq!(denials.note_at(Some(&other), now), Some(0));
        let later = now + PAUSE + Duration::from_millis(1);
        assert_eq!(denials.note_at(Some(&flood), later), Some(980));
        assert_eq!(denials.note_at(Some(&flood), later), None);
    }
}
