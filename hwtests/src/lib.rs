//! Test support: real engines, whole daemons, load and faults. Everything runs on temporary state and ends when it is
//! dropped, so that tests run side by side.
//!
//! What is missing on the machine is a failure with a sentence that says what to install, never a skipped test.

pub mod audit;
pub mod authority;
pub mod daemon;
pub mod engines;
pub mod fixture;
pub mod http2;
pub mod load;
pub mod log;
pub mod monitor;
pub mod openssl;
pub mod process;
pub mod programs;
pub mod proxy;
pub mod pty;
pub mod random_requests;
pub mod real;
pub mod s3;
pub mod scripted;
pub mod webhook;
pub mod witness;

use std::time::{Duration, Instant};

/// Waits until `condition` holds, for so long at most; `false` if it never did.
pub async fn eventually<F: Future<Output = bool>>(
    patience: Duration,
    mut condition: impl FnMut() -> F,
) -> bool {
    let start = Instant::now();
    loop {
        if condition().await {
            return true;
        }
        if start.elapsed() > patience {
            return false;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A path as a TOML string.
pub fn toml_path(path: &std::path::Path) -> String {
    format!("{:?}", path.to_str().expect("temporary paths are text"))
}

/// A secret that was never used before: what a test looks for afterwards.
pub fn random_secret() -> String {
    use std::io::Read;
    let mut bytes = [0; 12];
    std::fs::File::open("/dev/urandom")
        .and_then(|mut f| f.read_exact(&mut bytes))
        .expect("/dev/urandom can be read");
    hex::encode(bytes)
}
