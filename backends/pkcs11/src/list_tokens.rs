//! Which tokens a module shows: for people who write a configuration, and for `signer doctor`.

use std::path::Path;

use signer_core::Result;

use crate::{token::load, token_info::TokenInfo};

/// Loads a module and returns the initialised tokens that it shows now. No PIN is needed.
pub fn list_tokens(module: &Path) -> Result<Vec<TokenInfo>> {
    let module = load(module)?;
    module.initialize()?;
    let tokens = TokenInfo::all(&module);
    let _ = module.finalize();
    Ok(tokens?)
}
