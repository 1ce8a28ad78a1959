//! Random requests to a server.

use std::{net::SocketAddr, time::Instant};

use clap::Args;
use hwtests::random_requests::{still_serves, storm};

#[derive(Debug, Args)]
pub(crate) struct Random {
    /// Where it answers.
    #[arg(long)]
    address: SocketAddr,
    /// The server's process.
    #[arg(long)]
    pid: u32,
    /// How many.
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
    /// The same seed, the same requests.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many MiB it may grow after the first tenth.
    #[arg(long, default_value_t = 20)]
    growth: u64,
}

pub(crate) async fn run(command: Random) {
    let began = Instant::now();
    let report = storm(command.address, command.pid, command.requests, command.seed).await;
    println!("{} requests in {:.0} s", command.requests, began.elapsed().as_secs_f64());
    for (status, count) in &report.answers {
        let name = if *status == 0 { "closed".to_owned() } else { status.to_string() };
        println!("{name:>8} {count:>9}");
    }
    let (early, late) = report.memory;
    println!("memory: {} MiB after a tenth, {} MiB at the end", early / 1024, late / 1024);
    report.wrong.iter().for_each(|wrong| println!("WRONG {wrong}"));
    let goes_on = still_serves(command.address).await;
    if !report.wrong.is_empty() || late > early + command.growth * 1024 || !goes_on {
        println!("not in order");
        std::process::exit(1);
    }
}
