//! Random requests to a server.

use std::{net::SocketAddr, time::Instant};

use hwtests::random_requests::{still_serves, storm};

/// The same seed, the same requests.
const SEED: u64 = 1;
/// MiB that it may grow after the first tenth.
const GROWTH: u64 = 20;

/// Sends so many to the server of that process; ends with 1 when an answer is out of order, or it grows.
pub(crate) async fn run(address: SocketAddr, pid: u32, requests: u64) {
    let began = Instant::now();
    let report = storm(address, pid, requests, SEED).await;
    println!("{requests} requests in {:.0} s", began.elapsed().as_secs_f64());
    for (status, count) in &report.answers {
        let name = if *status == 0 { "closed".to_owned() } else { status.to_string() };
        println!("{name:>8} {count:>9}");
    }
    let (early, late) = report.memory;
    println!("memory: {} MiB after a tenth, {} MiB at the end", early / 1024, late / 1024);
    report.wrong.iter().for_each(|wrong| println!("WRONG {wrong}"));
    let goes_on = still_serves(address).await;
    if !report.wrong.is_empty() || late > early + GROWTH * 1024 || !goes_on {
        println!("not in order");
        std::process::exit(1);
    }
}
