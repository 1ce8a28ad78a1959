//! The roots that a certificate log accepts: a PEM file, read again when it changes.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use signer_core::{Error, Result};

use crate::x509;

/// The accepted roots. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Roots {
    file: Arc<PathBuf>,
    accepted: Arc<RwLock<Arc<Vec<Vec<u8>>>>>,
}

/// How often the file is looked at.
const INTERVAL: Duration = Duration::from_secs(5);

impl Roots {
    /// Reads the file. There must be a root in it.
    pub(crate) fn read(file: &Path) -> Result<Self> {
        let accepted = Arc::new(RwLock::new(Arc::new(load(file)?)));
        Ok(Self { file: Arc::new(file.to_owned()), accepted })
    }

    /// The roots as they are now, DER.
    pub(crate) fn accepted(&self) -> Arc<Vec<Vec<u8>>> {
        self.accepted.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the file again when it has changed, for ever. A file that cannot be read changes nothing.
    pub(crate) async fn follow(self) {
        let mut seen = changed(&self.file);
        loop {
            tokio::time::sleep(INTERVAL).await;
            let now = changed(&self.file);
            if now == seen {
                continue;
            }
            seen = now;
            match load(&self.file) {
                Ok(roots) => {
                    tracing::info!("{} roots are accepted now", roots.len());
                    *self.accepted.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(roots);
                }
                Err(e) => tracing::warn!("the roots stay as they were: {e}"),
            }
        }
    }
}

fn changed(file: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

fn load(file: &Path) -> Result<Vec<Vec<u8>>> {
    let cannot = |e: &dyn std::fmt::Display| {
        Error::bad_request(format!("the roots in {} cannot be read", file.display())).vendor(e)
    };
    let text = std::fs::read_to_string(file).map_err(|e| cannot(&e))?;
    let roots = x509::read_pem(&text).map_err(|e| cannot(&e))?;
    if roots.is_empty() {
        return Err(cannot(&"no certificate is in it").next("put the CA's root certificates there, as PEM"));
    }
    Ok(roots)
}
