//! Load for a log: a signature log with Rekor v2's API, or a certificate log with RFC 6962's, ours or another. Closed loops that
//! each wait for their answer, a new signature or certificate each time. Beside it, in the same run: how long a durable write of
//! 4 KiB takes on the log's disk, and a signature of the log's key.

mod authority;
mod fill;
mod random;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use clap::Parser;
use hwtests::log::{Caller, ENTRIES, Signatory};
use signer_bench::{disk::durable_write, procfs};
use signer_core::{SignRequest, Signer};

use authority::Authority;

/// Measures a log.
#[derive(Debug, Parser)]
struct Cli {
    /// Where it answers.
    #[arg(long, required_unless_present_any = ["make_authority", "fill"])]
    address: Option<SocketAddr>,
    /// Make a root for certificates in this folder (root.pem), and end.
    #[arg(long, value_name = "DIR")]
    make_authority: Option<PathBuf>,
    /// Append so many entries to the signature log in --storage, which nobody serves, with its --key, and end.
    #[arg(long, value_name = "COUNT", requires_all = ["storage", "key"])]
    fill: Option<u64>,
    /// Send so many random requests instead; its memory (--pid) may not grow. Exit code 1 if it is not in order.
    #[arg(long, value_name = "COUNT", requires = "pid")]
    random: Option<u64>,
    /// The folder of the log.
    #[arg(long, value_name = "DIR")]
    storage: Option<PathBuf>,
    /// It is a certificate log that accepts the root of this folder.
    #[arg(long, value_name = "DIR")]
    authority: Option<PathBuf>,
    /// The log's key behind the daemon: how long a signature takes is measured first.
    #[arg(long)]
    key: Option<String>,
    /// How many callers at a time, one row each.
    #[arg(long, value_delimiter = ',', default_value = "1,16,128")]
    clients: Vec<usize>,
    /// How long each row takes.
    #[arg(long, default_value_t = 5.0)]
    seconds: f64,
    /// The server's process: its processor time and memory are shown. More processes, such as the daemon with the key, count for
    /// the processor time.
    #[arg(long, value_delimiter = ',')]
    pid: Vec<u32>,
    /// A folder on the log's disk: durable writes of 4 KiB are measured there first.
    #[arg(long)]
    disk: Option<PathBuf>,
}

#[tokio::main]
async fn main() {
    let cli = Cli::parse();
    if let Some(folder) = &cli.make_authority {
        Authority::make(folder).expect("the folder can be written to");
        return;
    }
    if let (Some(count), Some(folder), Some(key)) = (cli.fill, &cli.storage, &cli.key) {
        return fill::fill(folder, key, count).await;
    }
    if let (Some(count), Some(address), Some(pid)) = (cli.random, cli.address, cli.pid.first()) {
        return random::run(address, *pid, count).await;
    }
    if let Some(folder) = &cli.disk {
        let micros =
            durable_write(&folder.join(".durable-write")).expect("the disk works").as_secs_f64() * 1e6;
        println!("a durable write of 4 KiB: p50 {micros:.0} us");
    }
    if let Some(key) = &cli.key {
        let micros = signature(key).await.as_secs_f64() * 1e6;
        println!("a checkpoint signature: p50 {micros:.0} us");
    }
    println!(
        "{:>8} {:>10} {:>10} {:>10} {:>8} {:>12} {:>10}",
        "clients", "entries/s", "p50 ms", "p99 ms", "errors", "CPU us/entry", "RSS MiB"
    );
    for clients in &cli.clients {
        let row = measure(&cli, *clients).await;
        println!(
            "{clients:>8} {:>10.0} {:>10.2} {:>10.2} {:>8} {:>12} {:>10}",
            row.rate, row.p50, row.p99, row.errors, row.cpu, row.memory
        );
    }
}

/// The median of a signature by the daemon, over something as long as a checkpoint.
async fn signature(key: &str) -> Duration {
    let client = signerd_api::Client::new(signerd_api::find_socket());
    let signer = client.key(key).await.expect("the daemon has the key");
    let algorithm = signer.info().public_key.key_type().default_algorithm();
    let mut times = Vec::new();
    for i in 0..400_u64 {
        let message = [&i.to_be_bytes()[..], &[7; 80]].concat();
        let began = Instant::now();
        signer.sign(SignRequest::message(algorithm, message)).await.expect("the daemon signs");
        times.push(began.elapsed());
    }
    times.sort_unstable();
    times[times.len() / 2]
}

/// What callers send, and the status that means that it is in the log.
enum Work {
    Signatures(Box<Signatory>),
    Certificates(Arc<Authority>),
}

impl Work {
    fn request(&self, round: u64) -> (&'static str, String, u16) {
        match self {
            Self::Signatures(signatory) => {
                (ENTRIES, signatory.request(&round.to_be_bytes()).to_string(), 201)
            }
            Self::Certificates(authority) => {
                ("/ct/v1/add-chain", authority.request().expect("a certificate can be issued"), 200)
            }
        }
    }
}

struct Row {
    rate: f64,
    p50: f64,
    p99: f64,
    errors: u64,
    cpu: String,
    memory: String,
}

async fn measure(cli: &Cli, clients: usize) -> Row {
    let (stop, counting, errors) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let authority = cli
        .authority
        .as_ref()
        .map(|folder| Arc::new(Authority::open(folder).expect("--make-authority made the folder")));
    let address = cli.address.expect("clap has seen to it");
    let tasks: Vec<_> = (0..clients)
        .map(|_| {
            let (stop, counting, errors) = (stop.clone(), counting.clone(), errors.clone());
            let mut caller = Caller::to(address);
            let work = match &authority {
                Some(authority) => Work::Certificates(authority.clone()),
                None => Work::Signatures(Box::default()),
            };
            tokio::spawn(async move {
                let mut times = Vec::new();
                for round in 0_u64.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    let (path, request, expected) = work.request(round);
                    let began = Instant::now();
                    match caller.post(path, request.as_bytes()).await {
                        Ok(answer) if answer.status == expected => {
                            if counting.load(Ordering::Relaxed) {
                                times.push(began.elapsed());
                            }
                        }
                        _ => {
                            errors.fetch_add(1, Ordering::Relaxed);
                            tokio::time::sleep(Duration::from_millis(20)).await;
                        }
                    }
                }
                times
            })
        })
        .collect();
    tokio::time::sleep(Duration::from_secs_f64(cli.seconds / 5.0)).await;
    let (began, cpu) = (Instant::now(), cpu_us(&cli.pid));
    counting.store(true, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs_f64(cli.seconds)).await;
    counting.store(false, Ordering::Relaxed);
    let (took, cpu) = (began.elapsed().as_secs_f64(), cpu.zip(cpu_us(&cli.pid)));
    let memory = cli.pid.first().map(|pid| hwtests::process::memory_kib(*pid, "VmRSS") / 1024);
    stop.store(true, Ordering::Relaxed);
    let mut times = Vec::new();
    for task in tasks {
        times.extend(task.await.expect("a caller panicked"));
    }
    times.sort_unstable();
    let at = |part: f64| {
        times.get((times.len() as f64 * part) as usize).map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
    };
    let each = |(before, after): (f64, f64)| format!("{:.0}", (after - before) / times.len().max(1) as f64);
    Row {
        rate: times.len() as f64 / took,
        p50: at(0.5),
        p99: at(0.99),
        errors: errors.load(Ordering::Relaxed),
        cpu: cpu.map_or_else(|| "-".into(), each),
        memory: memory.map_or_else(|| "-".into(), |m| m.to_string()),
    }
}

/// Processor time of processes, together, in microseconds.
fn cpu_us(pids: &[u32]) -> Option<f64> {
    (!pids.is_empty()).then(|| pids.iter().map(|pid| procfs::cpu_us(*pid)).sum())
}
