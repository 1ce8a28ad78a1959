//! Where a log is kept, as people write it: a folder, or `s3://BUCKET/PREFIX`.

use std::{
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Args;
use signer_core::{Error, ErrorKind, Result};
use signer_log_engine::{Bucket, BucketStorage, Folder, LocalStorage, Objects, Storage};

use crate::{place::Description, s3};

/// Where a log is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Location {
    /// A folder of this machine.
    Folder(PathBuf),
    /// The objects under a prefix of a bucket of an S3 service.
    Bucket {
        /// The bucket's name.
        bucket: String,
        /// What the names of all objects begin with; may be empty.
        prefix: String,
    },
}

impl FromStr for Location {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let Some(rest) = text.strip_prefix("s3://") else {
            return if text.is_empty() || text.contains("://") {
                Err(Error::bad_request(format!("{text:?} is no place for a log"))
                    .next("give a folder, or s3://BUCKET/PREFIX"))
            } else {
                Ok(Self::Folder(text.into()))
            };
        };
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, b'-' | b'.');
        if !(3..=63).contains(&bucket.len()) || !bucket.bytes().all(plain) {
            return Err(Error::bad_request(format!("{bucket:?} is no name of a bucket"))
                .next("write s3://BUCKET/PREFIX: 3 to 63 small letters, digits, dots and hyphens"));
        }
        let prefix = prefix.trim_matches('/');
        if !prefix.is_empty() && prefix.split('/').any(|p| p.is_empty() || p.starts_with('.')) {
            return Err(Error::bad_request(format!("{prefix:?} is no prefix for a log"))
                .next("leave out empty parts, and parts that begin with a dot"));
        }
        Ok(Self::Bucket { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
    }
}

impl std::fmt::Display for Location {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Bucket { bucket, prefix } if prefix.is_empty() => write!(f, "s3://{bucket}"),
            Self::Bucket { bucket, prefix } => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// How to reach a bucket. What is not said is as the AWS command line has it: variables, `~/.aws`, the machine's role.
#[derive(Clone, Debug, Default, Args)]
#[allow(clippy::struct_field_names)] // the names of the options
pub(crate) struct S3Options {
    /// For s3://: the URL of the S3 service, if it is not AWS's own.
    #[arg(long, value_name = "URL")]
    pub(crate) s3_endpoint: Option<String>,
    /// For s3://: the region.
    #[arg(long, value_name = "NAME")]
    pub(crate) s3_region: Option<String>,
    /// For s3://: the certificate authorities to trust instead of the system's, PEM.
    #[arg(long, value_name = "FILE")]
    pub(crate) s3_ca_file: Option<PathBuf>,
}

/// A log's place, opened by a process that may write it.
pub(crate) struct Opened {
    pub(crate) storage: Arc<dyn Storage>,
    says: Says,
}

/// Where a place says what it is.
enum Says {
    Folder(PathBuf),
    Bucket(Arc<BucketStorage>, Location),
}

impl Location {
    /// Opens the place to write it. `state` is for a bucket: the folder for what can be made again from it.
    pub(crate) async fn open(&self, options: &S3Options, state: Option<PathBuf>) -> Result<Opened> {
        match self {
            Self::Folder(folder) => Opened::folder(folder),
            Self::Bucket { bucket, prefix } => {
                let store = s3::connect(bucket, options).await?;
                let storage = Arc::new(BucketStorage::open(store, prefix, state)?);
                Ok(Opened { storage: storage.clone(), says: Says::Bucket(storage, self.clone()) })
            }
        }
    }

    /// Opens the place of a log that is there. Nothing is made where there is none.
    pub(crate) async fn open_log(&self, options: &S3Options, state: Option<PathBuf>) -> Result<Opened> {
        if let Self::Folder(folder) = self {
            Description::read(folder)?;
        }
        self.open(options, state).await
    }

    /// Opens the place to read it, and reads what it says of itself if it does.
    pub(crate) async fn read(&self, options: &S3Options) -> Result<(Box<dyn Objects>, Option<Description>)> {
        match self {
            Self::Folder(folder) => Ok((Box::new(Folder::new(folder)), Description::read(folder).ok())),
            Self::Bucket { bucket, prefix } => {
                let bucket = Bucket::new(s3::connect(bucket, options).await?, prefix)?;
                let description = bucket.get(DESCRIPTION)?.map(|text| Description::from_json(&text, self));
                Ok((Box::new(bucket), description.transpose()?))
            }
        }
    }

    /// The folder for a bucket's index if none is named: below the cache of the system's service or of the user.
    pub(crate) fn default_state(&self, options: &S3Options) -> Result<Option<PathBuf>> {
        if matches!(self, Self::Folder(_)) {
            return Ok(None);
        }
        let variable = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let cache = variable("CACHE_DIRECTORY")
            .or_else(|| variable("XDG_CACHE_HOME").map(|c| c.join("signer-log")))
            .or_else(|| variable("HOME").map(|h| h.join(".cache/signer-log")))
            .ok_or_else(|| {
                Error::bad_request("there is no folder for the index of the log's entries")
                    .next("give --state a folder")
            })?;
        let endpoint = options.s3_endpoint.as_deref().unwrap_or_default();
        let name: String = format!("{endpoint} {self}")
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' })
            .collect();
        Ok(Some(cache.join(name.trim_start_matches('_'))))
    }
}

const DESCRIPTION: &str = ".state/log.json";
/// How long a store may take to show what it refuses to make a second time.
const ON_ITS_WAY: Duration = Duration::from_secs(5);
const FROZEN: &str = ".state/frozen";

impl Opened {
    /// The log of a folder.
    pub(crate) fn folder(folder: &Path) -> Result<Self> {
        let storage = Arc::new(LocalStorage::open(folder)?);
        Ok(Self { storage, says: Says::Folder(folder.to_owned()) })
    }

    /// What the place says of its log.
    pub(crate) fn description(&self) -> Result<Description> {
        match &self.says {
            Says::Folder(folder) => Description::read(folder),
            Says::Bucket(storage, location) => {
                let text = storage.bucket().get(DESCRIPTION)?.ok_or_else(|| {
                    Error::new(ErrorKind::NotFound, format!("there is no log in {location}"))
                        .next("`signer-log init` makes one")
                })?;
                Description::from_json(&text, location)
            }
        }
    }

    /// Says what the log is that is to be made here; a place says that once.
    pub(crate) fn describe(&self, description: &Description) -> Result<()> {
        match &self.says {
            Says::Folder(folder) => description.write(folder),
            Says::Bucket(storage, location) => {
                let text = description.to_json()?;
                let until = Instant::now() + ON_ITS_WAY;
                while !storage.bucket().create(DESCRIPTION, &text)? {
                    // Ours may be there already, or be about to be: a request that was made again because its answer was lost.
                    let there = storage.bucket().get(DESCRIPTION)?;
                    if there.as_deref() == Some(text.as_ref()) {
                        break;
                    }
                    if there.is_some() || Instant::now() > until {
                        let what = format!("there is a log in {location} already");
                        return Err(Error::new(ErrorKind::AlreadyExists, what)
                            .next("choose another prefix, or serve this one"));
                    }
                    std::thread::sleep(ON_ITS_WAY / 50);
                }
                Ok(())
            }
        }
    }

    /// Whether the log was closed for ever.
    pub(crate) fn is_frozen(&self) -> Result<bool> {
        match &self.says {
            Says::Folder(folder) => Ok(Description::is_frozen_in(folder)),
            Says::Bucket(storage, _) => Ok(storage.bucket().get(FROZEN)?.is_some()),
        }
    }

    /// Closes it for ever, durably.
    pub(crate) fn freeze(&self) -> Result<()> {
        match &self.says {
            Says::Folder(folder) => Description::freeze(folder),
            Says::Bucket(storage, _) => storage.bucket().create(FROZEN, b"frozen\n").map(drop),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read_as_people_write_them() {
        assert_eq!("/var/log".parse::<Location>().unwrap(), Location::Folder("/var/log".into()));
        let bucket =
            |bucket: &str, prefix: &str| Location::Bucket { bucket: bucket.into(), prefix: prefix.into() };
        assert_eq!("s3://logs".parse::<Location>().unwrap(), bucket("logs", ""));
        assert_eq!("s3://my.logs/2026/a/".parse::<Location>().unwrap(), bucket("my.logs", "2026/a"));
        assert_eq!(bucket("logs", "a").to_string(), "s3://logs/a");
        for bad in [
            "",
            "s3://",
            "s3://x/",
            "s3://Logs/a",
            "s3://logs/a//b",
            "s3://logs/.state",
            "http://a/b",
            "gs://b/c",
        ] {
            assert!(bad.parse::<Location>().is_err(), "{bad}");
        }
    }
}
