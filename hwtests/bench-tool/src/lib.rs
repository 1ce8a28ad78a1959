//! How the benchmarks measure and what they print: shared by `signer-bench`, `signer-backend-bench` and
//! `signer-log-bench`.

pub mod disk;
pub mod measure;
pub mod procfs;
pub mod report;
pub mod table;
