//! The baselines: each maker's client or library without signerd, as a process of its own. Callers ask again as soon as they are
//! answered. Those of services share one thread, as the daemon has one; a device is used by one thread, because it does one thing
//! at a time.

use std::{process::ExitCode, sync::Arc, time::Instant};

use clap::Args;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use signer_core::BoxFuture;

use crate::{
    Result, Timing,
    measure::{Load, Window},
};

mod aws;
mod azure;
mod card;
mod google;
mod tpm;
mod vault;

/// Sign without the daemon
#[derive(Args, Debug)]
pub(crate) struct Direct {
    /// What with, as JSON
    #[arg(long)]
    with: String,
    /// How many at once
    #[arg(long, default_value_t = 1)]
    callers: usize,
    #[command(flatten)]
    timing: Timing,
}

/// Which client or library, and where its engine is.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum With {
    Vault { url: String, token: String, key: String },
    Aws { endpoint: String, key: String },
    Google { endpoint: String, service_account: String, version: String },
    Azure { vault: String, engine: String, ca: String, key: String, version: Option<String> },
    Tpm { tcti: String },
    Card { slot: String, pin_file: String },
}

/// One signature.
type Call = Arc<dyn Fn() -> BoxFuture<'static, Result<()>> + Send + Sync>;

impl Direct {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let load = match serde_json::from_str(&self.with)? {
            With::Tpm { tcti } => tpm::load(&tcti, self.timing)?,
            With::Card { slot, pin_file } => card::load(&slot, &pin_file, self.timing)?,
            service => {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                runtime.block_on(self.service(service))?
            }
        };
        println!("{}", serde_json::to_string(&load)?);
        Ok(ExitCode::SUCCESS)
    }

    async fn service(&self, with: With) -> Result<Load> {
        let call = match with {
            With::Vault { url, token, key } => vault::call(&url, &token, &key),
            With::Aws { endpoint, key } => aws::call(endpoint, key),
            With::Google { endpoint, service_account, version } => {
                google::call(endpoint, &service_account, version).await?
            }
            With::Azure { vault, engine, ca, key, version } => {
                azure::call(&vault, &engine, &ca, key, version)?
            }
            With::Tpm { .. } | With::Card { .. } => return Err("a device is no service".into()),
        };
        // Connections and tokens are there before it is measured.
        call().await?;
        let window = Window::new(self.timing.warm_up, self.timing.seconds, None);
        let observer = window.observe();
        let caller = async || -> Result<Vec<u64>> {
            let mut latencies = Vec::with_capacity(1 << 14);
            loop {
                let start = Instant::now();
                if start >= window.end {
                    return Ok(latencies);
                }
                call().await?;
                if start >= window.begin {
                    latencies.push(start.elapsed().as_nanos() as u64);
                }
            }
        };
        let latencies = try_join_all((0..self.callers).map(|_| caller())).await?.concat();
        window.close(observer, latencies)
    }
}
