//! The rows of the table, a file each.

use std::process::Command;

use hwtests::{
    daemon::{Daemon, GRANT_ALL},
    programs,
};
use signer_core::KeyInfo;

use crate::{
    Result,
    direct::With,
    measure::Load,
    report::{Goal, Limit, Line, Row, median, rate},
};

mod card;
mod clouds;
mod idle;
mod slow_device;
mod tpm;
mod vault;

/// One backend's measurement: a row for each distance of its engine.
type Measure = fn(&Bench) -> Result<Vec<Row>>;

/// All of them, in the order of the table.
pub(crate) const ROWS: [(&str, Measure); 8] = [
    ("tpm", tpm::rows),
    ("card", card::rows),
    ("vault", vault::rows),
    ("aws", clouds::aws),
    ("google", clouds::google),
    ("azure", clouds::azure),
    ("slow-device", slow_device::rows),
    ("idle", idle::rows),
];

/// Clients of the daemon, callers of the library.
const MANY: usize = 16;

/// What every row gets.
pub(crate) struct Bench {
    pub(crate) rounds: usize,
    short: bool,
    runtime: tokio::runtime::Runtime,
}

/// What one round showed: the library and the daemon, one caller and many.
struct Round {
    direct: [Load; 2],
    through: [Load; 2],
}

impl Bench {
    pub(crate) fn new(rounds: usize, short: bool) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        Ok(Self { rounds, short, runtime })
    }

    /// Waits for something.
    fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// A daemon before an engine, as it is used: no line for each signature in its log.
    fn daemon(&self, table: &str) -> Daemon {
        self.wait(Daemon::start_with(&format!("[log]\nlevel = \"info\"\n\n{table}\n{GRANT_ALL}")))
    }

    /// The same with a P-256 key, `place/bench`, and what is known of it.
    fn daemon_with_a_key(&self, table: &str) -> (Daemon, KeyInfo) {
        let daemon = self.daemon(table);
        let key = self.wait(async {
            daemon.backend("place").await;
            daemon.make_key("place", "bench").await
        });
        (daemon, key)
    }

    /// The library called directly. `seconds` is how long a device of that speed is measured.
    fn direct(&self, mut program: Command, with: &With, callers: usize, seconds: f64) -> Result<Load> {
        program.args(["direct", "--with", &serde_json::to_string(with)?, "--callers", &callers.to_string()]);
        self.load(program, seconds)
    }

    /// Clients of a daemon.
    fn drive(&self, daemon: &Daemon, key: &str, clients: usize, seconds: f64) -> Result<Load> {
        let mut program = Command::new(programs::ours("signer-bench"));
        program.arg("drive").arg("--socket").arg(daemon.socket()).args(["--key", key]);
        program.args(["--clients", &clients.to_string(), "--watch", &daemon.pid().to_string()]);
        self.load(program, seconds)
    }

    fn load(&self, mut program: Command, seconds: f64) -> Result<Load> {
        let seconds = if self.short { seconds.min(0.8) } else { seconds };
        program.args(["--warm-up", "0.3", "--seconds", &seconds.to_string()]);
        let output = programs::output(&mut program);
        if !output.status.success() {
            return Err(format!("{program:?}: {}", programs::text(&output)).into());
        }
        Ok(serde_json::from_slice(&output.stdout)?)
    }

    /// Rounds of library and daemon in turns.
    fn compare(
        &self,
        mut direct: impl FnMut(usize) -> Result<Load>,
        mut through: impl FnMut(usize) -> Result<Load>,
    ) -> Result<Vec<Round>> {
        let round =
            |_| Ok(Round { direct: [direct(1)?, direct(MANY)?], through: [through(1)?, through(MANY)?] });
        (0..self.rounds).map(round).collect()
    }
}

/// This program, for its other command.
fn this() -> Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}

/// The table of one comparison. `goals` where the engine is as far away, or as slow, as a real one.
fn row(name: &'static str, title: &'static str, library: &str, rounds: &[Round], goals: bool) -> Row {
    let loads = |of: fn(&Round) -> &Load| rounds.iter().map(of).cloned().collect::<Vec<_>>();
    let line = |who: String, of| Line::of_loads(&who, &loads(of));
    let ratios: Vec<f64> = rounds.iter().map(|r| rate(&r.through[1]) / rate(&r.direct[1])).collect();
    let added: Vec<f64> = rounds.iter().map(|r| r.through[0].p50_ms - r.direct[0].p50_ms).collect();
    let lines = [
        line(format!("{library}, 1 caller"), |r| &r.direct[0]),
        line("signerd, 1 client".into(), |r| &r.through[0]),
        line(format!("{library}, {MANY} callers"), |r| &r.direct[1]),
        line(format!("signerd, {MANY} clients"), |r| &r.through[1]),
    ];
    if goals {
        let goals = vec![
            Goal::new("rate with 16 clients, of the library's", " times", &ratios, Limit::AtLeast(0.95)),
            Goal::new("p50 added for one client", " ms", &added, Limit::AtMost(0.3)),
        ];
        return Row { name, title, lines: lines.into(), goals };
    }
    let [direct_one, one, direct_many, many] = lines;
    let one = one.with("p50 added", median(added), 3);
    let many = many.with("of direct", median(ratios), 3);
    Row { name, title, lines: vec![direct_one, one, direct_many, many], goals: Vec::new() }
}
