//! The folder of an audit log, and what is in it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use clap::Args;
use signer_core::{Error, ErrorKind, PublicKey};
use signer_log_engine::{
    Checkpoint, Folder, Format, Note, NoteKey, Objects, TileId, TileKind, WIDTH, read_entry_tile,
};

use crate::{
    context::Context,
    failure::{Exit, Failure},
    places,
};

/// Which log.
#[derive(Args, Debug)]
pub(super) struct Which {
    /// The log's folder, or a copy of it [default: that of the daemon]
    #[arg(long, value_name = "DIR")]
    log: Option<PathBuf>,
}

impl Which {
    pub(super) async fn open(&self, context: &Context) -> Result<Log, Failure> {
        let folder = match &self.log {
            Some(folder) => folder.clone(),
            None => find(context).await?,
        };
        // A folder that may not be entered looks like an empty one to the rest.
        match fs::read(folder.join("checkpoint")) {
            Ok(_) => Ok(Log { objects: Folder::new(&folder), folder }),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound && folder.join(".state").exists() => {
                Err(Failure::failed(Error::new(
                    ErrorKind::NotFound,
                    format!("the log in {} has no checkpoint yet", folder.display()),
                ))
                .next("`signer status` says what it waits for"))
            }
            Err(e) => Err(Failure::io(format!("there is no log to be read in {}", folder.display()), &e)
                .next("name its folder with --log; who may read it is said by group in [audit]")),
        }
    }
}

/// Where the daemon's log is: as it says itself, else as its configuration says.
async fn find(context: &Context) -> Result<PathBuf, Failure> {
    let missing = |what: &str| {
        Failure::from(Error::new(ErrorKind::NotFound, what.to_owned()))
            .next("name the log's folder with --log")
    };
    match context.client().status().await {
        Ok((_, Some(audit))) => return Ok(audit.directory),
        Ok((_, None)) => {
            return Err(missing("the daemon keeps no audit log, or no grant lets you know of it"));
        }
        Err(e) => context.step(format_args!("the daemon does not say where its log is: {e}")),
    }
    let config = places::daemon_config().ok_or_else(|| missing("nobody says where the audit log is"))?;
    let text = fs::read_to_string(&config)
        .map_err(|e| Failure::io(format!("{} cannot be read", config.display()), &e))?;
    let table: toml::Table = text.parse().map_err(|_| missing("the daemon's configuration is no TOML"))?;
    let directory = table.get("audit").and_then(|audit| audit.get("directory")?.as_str());
    let directory = directory.ok_or_else(|| missing("the daemon's configuration names no folder for it"))?;
    Ok(config.parent().unwrap_or(Path::new("")).join(directory))
}

/// A log to be read. The daemon may be writing it meanwhile.
pub(super) struct Log {
    folder: PathBuf,
    pub(super) objects: Folder,
}

impl Log {
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The newest checkpoint as it is signed.
    pub(super) fn note(&self) -> Result<Vec<u8>, Failure> {
        let note = self.objects.read("checkpoint")?;
        note.ok_or_else(|| {
            Failure::failed(Error::new(ErrorKind::NotFound, "the log has no checkpoint any more"))
        })
    }

    /// How many records the newest checkpoint covers. Nothing is verified.
    pub(super) fn size(&self) -> Result<u64, Failure> {
        Ok(unverified(&self.note()?)?.size)
    }

    /// Hands over the records of a range, one after the other.
    pub(super) fn each(
        &self,
        from: u64,
        to: u64,
        mut take: impl FnMut(u64, &[u8]) -> Result<(), Failure>,
    ) -> Result<(), Failure> {
        for tile in from / WIDTH..to.div_ceil(WIDTH) {
            let width = (to - tile * WIDTH).min(WIDTH);
            let id = TileId::new(TileKind::Entries, tile, width)
                .ok_or_else(|| Failure::failed(Error::internal("the log is larger than tiles can be")))?;
            let bytes = read_entry_tile(&self.objects, Format::Entries, id).map_err(Failure::failed)?;
            for (at, entry) in Format::Entries.split_all(&bytes)?.iter().enumerate() {
                let index = tile * WIDTH + at as u64;
                if index >= from {
                    take(index, entry.body())?;
                }
            }
        }
        Ok(())
    }
}

/// What a checkpoint says, without a look at its signature.
pub(super) fn unverified(note: &[u8]) -> Result<Checkpoint, Failure> {
    let read = || Checkpoint::from_text(Note::parse(note)?.text());
    read().map_err(|e| Failure::failed(e.key("checkpoint")))
}

/// What a checkpoint says, signed by a key. The log's name is the one that it gives itself, unless another is expected.
pub(super) fn verified(note: &[u8], key: PublicKey, origin: Option<&str>) -> Result<Checkpoint, Failure> {
    let own = unverified(note)?.origin;
    let key = NoteKey::of_log(origin.unwrap_or(&own), key)?;
    Checkpoint::verified(note, &key).map_err(|e| {
        Failure::failed(Error::new(e.kind(), "the checkpoint is not by this key").vendor(e.what()))
            .next("is this the public key of the audit log? `signer keys show REF --pem` gives it")
    })
}

/// Everything went as it should, or not.
pub(super) fn exit(good: bool) -> Exit {
    if good { Exit::Done } else { Exit::Failed }
}
