//! Plain files, and what makes them durable.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
};

/// Writes a file in place, and makes its folders. Whoever may read it while it is written has been told not to yet.
pub(super) fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = match File::create(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), fs::create_dir_all)?;
            File::create(path)?
        }
        other => other?,
    };
    file.write_all(bytes)
}

/// Replaces a file in one step.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let beside = path.with_file_name(name);
    write(&beside, bytes)?;
    fs::rename(&beside, path)
}

/// Makes files durable, with their names in their folders and the folders in theirs up to `root`. A file that has gone
/// since was replaced by one that is in a later list.
pub(super) fn sync(root: &Path, files: &BTreeSet<PathBuf>) -> io::Result<()> {
    let mut folders = BTreeSet::new();
    for file in files {
        match File::open(file) {
            Ok(file) => file.sync_all()?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
        folders.extend(file.ancestors().skip(1).take_while(|f| f.starts_with(root)).map(Path::to_owned));
    }
    // The inner ones first: a name is durable when its folder is.
    for folder in folders.iter().rev() {
        match File::open(folder) {
            Ok(folder) => folder.sync_all()?,
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// Reads a whole file; `None` if there is none.
pub(super) fn read(path: &Path) -> io::Result<Option<Vec<u8>>> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(e)
            if matches!(
                e.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory | io::ErrorKind::IsADirectory
            ) =>
        {
            Ok(None)
        }
        Err(e) => Err(e),
    }
}
