//! Plain files, and what makes them durable.

use std::{
    collections::BTreeSet,
    fs::{self, File, Permissions},
    io::{self, Write},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

/// Who may read what is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// Whoever the process's mask lets.
    AsMasked,
    /// The group of the folder, whatever the mask: folders hand their group down.
    Group,
}

/// Folders that the group may enter, and that hand their group down; files that it may read.
const GROUP_FOLDER: u32 = 0o2750;
const GROUP_FILE: u32 = 0o640;

impl Readers {
    /// Makes a folder and those that it is in.
    pub(super) fn make_folder(self, path: &Path) -> io::Result<()> {
        if self == Self::AsMasked || path.is_dir() {
            return fs::create_dir_all(path);
        }
        path.parent().map_or(Ok(()), |parent| self.make_folder(parent))?;
        fs::create_dir(path).or_else(|e| if path.is_dir() { Ok(()) } else { Err(e) })?;
        self.open_folder(path)
    }

    /// Lets them into a folder that is there.
    pub(super) fn open_folder(self, path: &Path) -> io::Result<()> {
        if self == Self::AsMasked {
            return Ok(());
        }
        fs::set_permissions(path, Permissions::from_mode(GROUP_FOLDER))
    }
}

/// Writes a file in place, and makes its folders. Whoever may read it while it is written has been told not to yet.
pub(super) fn write(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let mut file = match File::create(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            path.parent().map_or(Ok(()), |folder| readers.make_folder(folder))?;
            File::create(path)?
        }
        other => other?,
    };
    if readers == Readers::Group {
        file.set_permissions(Permissions::from_mode(GROUP_FILE))?;
    }
    file.write_all(bytes)
}

/// Replaces a file in one step.
pub(super) fn replace(path: &Path, bytes: &[u8], readers: Readers) -> io::Result<()> {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".new");
    let beside = path.with_file_name(name);
    write(&beside, bytes, readers)?;
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
