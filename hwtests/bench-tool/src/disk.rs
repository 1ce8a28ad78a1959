//! What the disk takes for itself.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::Path,
    time::{Duration, Instant},
};

/// The median of 400 writes of 4 KiB with an `fdatasync` each, to blocks that are there already. The file is made, and taken away.
pub fn durable_write(path: &Path) -> io::Result<Duration> {
    let file = File::options().read(true).write(true).create(true).truncate(true).open(path)?;
    file.write_all_at(&vec![0; 4 << 20], 0)?;
    file.sync_all()?;
    let mut times = Vec::new();
    for i in 0..400_u64 {
        let began = Instant::now();
        file.write_all_at(&[i as u8; 4096], i * 4096)?;
        file.sync_data()?;
        times.push(began.elapsed());
    }
    fs::remove_file(path)?;
    times.sort_unstable();
    Ok(times[times.len() / 2])
}
