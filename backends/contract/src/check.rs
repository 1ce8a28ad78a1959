//! The list of checks, and how one is run.

use std::{sync::Arc, time::Duration};

use signer_core::BoxFuture;

use crate::{Failure, Fixture, Outcome, checks as c};

/// One thing that must hold.
pub struct Check {
    /// Its name, as `cargo test` shows it.
    pub name: &'static str,
    body: Body,
}

type Body = fn(Arc<dyn Fixture>) -> BoxFuture<'static, Outcome>;

/// Calls a macro with the name of every check: the one list of them. For [`contract_tests!`](crate::contract_tests).
#[doc(hidden)]
#[macro_export]
macro_rules! with_every_check {
    ($callback:path { $($arguments:tt)* }) => {
        $callback! {
            { $($arguments)* }
            description::describes_itself
            description::offers_exactly_its_abilities
            description::is_healthy
            signing::every_algorithm_signs
            signing::algorithms_that_a_key_lacks_are_unsupported
            signing::digests_that_do_not_fit_are_refused
            signing::two_keys_are_two_keys
            messages::empty_messages
            messages::messages_of_100_megabytes
            naming::unknown_keys_are_not_found
            naming::odd_labels
            naming::identifiers
            naming::addresses
            naming::a_name_is_taken_once
            naming::one_of_many_wins_a_name
            changes::imports_every_kind_in_every_form
            changes::deleted_keys_are_gone
            changes::old_versions_still_sign
            changes::certificates_are_kept
            scale::pages_lose_and_repeat_nothing
            scale::many_keys
            scale::concurrent_use
            scale::changes_under_load
            patience::a_deadline_in_the_past
            patience::dropped_futures_harm_nothing
            pins::a_missing_pin_is_asked_for
            pins::a_wrong_pin_is_tried_once
            pins::a_wrong_unlock_is_tried_once
            pins::an_unlock_while_open_is_no_trap
            restart::keys_survive_a_restart
        }
    };
}

macro_rules! table {
    ({} $($module:ident::$name:ident)*) => {
        /// Every check.
        pub fn checks() -> &'static [Check] {
            &[$(Check { name: stringify!($name), body: |fixture| Box::pin(c::$module::$name(fixture)) }),*]
        }
    };
}
with_every_check!(table {});

/// How long a check may take. A hang is a failure, not a wait.
const PATIENCE: Duration = Duration::from_mins(10);

/// Runs one check.
pub async fn run(fixture: Arc<dyn Fixture>, check: &Check) -> Outcome {
    // In a task of its own, so that a panic in the backend is this check's failure and not the program's end.
    let mut task = tokio::spawn((check.body)(fixture));
    match tokio::time::timeout(PATIENCE, &mut task).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => Err(Failure::new(format!("the backend panicked: {panic}"))),
        Err(_) => {
            task.abort();
            Err(Failure::new(format!("not done after {PATIENCE:?}")))
        }
    }
}

/// Runs the check of that name over the fixture that `start` makes, and panics with the failure: the body of the tests
/// that [`contract_tests!`](crate::contract_tests) generates.
pub fn test<F, X>(start: impl FnOnce() -> F, name: &str)
where
    F: Future<Output = X>,
    X: Fixture + 'static,
{
    let check = checks().iter().find(|c| c.name == name).expect("the macro and the table have one list");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(4)
        .enable_all()
        .build()
        .expect("a runtime can be started");
    let outcome = runtime.block_on(async { run(Arc::new(start().await), check).await });
    // Whatever still runs must not hold the test up.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Err(failure) = outcome {
        panic!("{failure}");
    }
}

/// Makes a module of tests, one for each check: `contract_tests!(softhsm_direct, fixture)`, where `fixture` is an
/// `async fn() -> impl Fixture`.
#[macro_export]
macro_rules! contract_tests {
    ($module:ident, $fixture:expr) => {
        $crate::with_every_check!($crate::contract_tests { $module, $fixture });
    };
    ({ $module:ident, $fixture:expr } $($area:ident::$name:ident)*) => {
        mod $module {
            #[allow(unused_imports)]
            use super::*;
            $(
                #[test]
                fn $name() {
                    $crate::test($fixture, stringify!($name));
                }
            )*
        }
    };
}
