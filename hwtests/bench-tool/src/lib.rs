//! How the benchmarks measure and what they print: shared by `signer-bench` and `signer-backend-bench`.

pub mod measure;
pub mod procfs;
pub mod report;
pub mod table;
