//! How fast a driver signs through the link, without the API: `throughput PROGRAM OPTIONS-JSON KEY TASKS SECONDS`.
//!
//! Environment: `DRIVER_PIN`, `PROCESSES`, `SPIN=1`, and `SOFTHSM2_CONF`, which the driver gets.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use signer_core::{Backend, Digest, HashAlgorithm, Pin, SignRequest};
use signer_driver::{DriverBackend, DriverConfig, PinLoader};

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let args: Vec<String> = std::env::args().collect();
    let tasks: usize = args[4].parse().expect("tasks");
    let seconds: f64 = args[5].parse().expect("seconds");
    let pin: PinLoader = Arc::new(|| std::env::var("DRIVER_PIN").ok().map(Pin::new).transpose());
    let config = DriverConfig {
        backend: "bench".into(),
        program: args[1].clone().into(),
        arguments: Vec::new(),
        environment: std::env::var("SOFTHSM2_CONF")
            .map(|v| ("SOFTHSM2_CONF".to_owned(), v))
            .into_iter()
            .collect(),
        options: serde_json::from_str(&args[2]).expect("JSON"),
        processes: std::env::var("PROCESSES").map_or(2, |p| p.parse().expect("number")),
        threads: 1,
        spin: std::env::var("SPIN").is_ok(),
        queue: 4096,
        pin: Some(pin),
        pin_ttl: None,
    };
    let backend = DriverBackend::start(config).await.expect("the driver starts");
    let signer = backend.open(&args[3].parse().expect("a key")).await.expect("the key is there");
    let algorithm = signer.info().default_algorithm();
    let hash = algorithm.prehash().unwrap_or(HashAlgorithm::Sha256);
    let request = SignRequest::digest(algorithm, Digest::of(hash, b"x")).expect("fits");
    let stop = Instant::now() + Duration::from_secs_f64(seconds);
    let work: Vec<_> = (0..tasks)
        .map(|_| {
            let (signer, request) = (signer.clone(), request.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                while Instant::now() < stop {
                    let start = Instant::now();
                    signer.sign(request.clone()).await.expect("signs");
                    times.push(start.elapsed());
                }
                times
            })
        })
        .collect();
    let mut all = Vec::new();
    for task in work {
        all.extend(task.await.expect("no panic"));
    }
    all.sort();
    let at = |q: f64| all[((all.len() - 1) as f64 * q) as usize];
    println!("{tasks:3} tasks {:8.0}/s p50 {:?} p99 {:?}", all.len() as f64 / seconds, at(0.5), at(0.99));
}
