//! The rows of the table, a file each.

use std::error::Error;

use crate::{
    measure::Load,
    report::{Line, Row, rate},
    run::Bench,
    stage,
};

mod audit;
mod clients_16;
mod idle;
mod large_file;
mod one_client;
mod p11_kit;
mod parsec;
mod process;
mod rsa;
mod software;
mod streams;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

/// One row's measurement.
type Measure = fn(&Bench) -> Result<Row>;

/// All rows, in the order of the table.
pub(crate) const ROWS: [(&str, Measure); 9] = [
    ("one-client", one_client::row),
    ("clients-16", clients_16::row),
    ("streams", streams::row),
    ("rsa", rsa::row),
    ("software", software::row),
    ("audit", audit::row),
    ("large-file", large_file::row),
    ("idle", idle::row),
    ("process", process::row),
];

/// One of those who do the same task in turns.
pub(crate) struct Contender<'a, T> {
    pub(crate) who: String,
    pub(crate) run: Box<dyn FnMut() -> Result<T> + 'a>,
}

impl<'a, T> Contender<'a, T> {
    fn new(who: impl Into<String>, run: impl FnMut() -> Result<T> + 'a) -> Self {
        Self { who: who.into(), run: Box::new(run) }
    }
}

/// A contender that is a command of this program.
fn loading<'a>(who: impl Into<String>, make: impl Fn() -> std::process::Command + 'a) -> Contender<'a, Load> {
    Contender::new(who, move || stage::load(&mut make()))
}

fn lines(contenders: &[Contender<'_, Load>], rounds: &[Vec<Load>]) -> Vec<Line> {
    contenders.iter().zip(rounds).map(|(c, loads)| Line::of_loads(&c.who, loads)).collect()
}

/// Round by round, a figure of one over the same figure of the other.
fn ratios(ours: &[Load], theirs: &[Load], figure: fn(&Load) -> f64) -> Vec<f64> {
    ours.iter().zip(theirs).map(|(o, t)| figure(o) / figure(t)).collect()
}

/// Round by round, the ratio of the rates.
fn rates(ours: &[Load], theirs: &[Load]) -> Vec<f64> {
    ratios(ours, theirs, rate)
}
