//! The daemon: who may use which key for what.
//!
//! A request's way, from the outside in: `server` accepts connections and knows whose they are; `service` is the
//! API; `state` finds the key and asks `grants`; `compose` has put what measures, queues and limits around it;
//! the backend, in this process or in a driver's, signs. Beside it `audit` writes down who did that.

mod allocator;
mod audit;
mod call;
mod check;
mod cli;
mod compose;
mod config;
mod events;
mod grants;
mod group;
mod hardening;
mod health;
mod identity;
mod keys;
mod listen;
mod logging;
mod metrics;
mod metrics_server;
mod place;
mod prompts;
mod run;
mod server;
mod service;
mod start;
mod state;

pub use cli::{EXAMPLE, main};
pub use config::{
    AuditConfig, AuditKeyRef, BackendConfig, BackendKind, Config, DriverTable, Fault, Faults, GrantConfig,
    KeyConfig, Limits, Log, Metrics, Order, Overrides, SecretSource, SoftwareTable, config_file,
    default_socket, default_state,
};
pub use grants::{AlgorithmSet, CallerPattern, Glob, Grants, KeyNames, Operations, denied, explain};
pub use identity::Identity;
