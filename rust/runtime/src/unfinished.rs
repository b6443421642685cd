//! What is left of a cluster whose making was interrupted.
//!
//! A process that dies between its first directory and its first manifest leaves directories that belong to no cluster and never
//! held anything. A mark says so: it is there before the first of them and goes when the manifest is written. Whoever finds the
//! mark and no manifest empties the directories that it names, and begins again.
//!
//! ```text
//!   <cluster>/creating     a line that says what this is | NUL | directory | NUL | directory ...
//! ```

use std::io;
use std::path::Path;

use aurora_store::{Disk, OpenMode};

/// Name of the mark.
const MARK: &str = "creating";
/// A mark that is being written.
pub(crate) const TEMP: &str = "creating.new";
/// What a mark begins with.
const FIRST: &str = "aurora-engine: a cluster is being made in these directories";

/// Says that directories, which are empty or not there yet, are about to be filled. `places` are relative to `dir`, or absolute.
pub(crate) fn mark<'a>(
    disk: &dyn Disk,
    dir: &Path,
    places: impl Iterator<Item = &'a str>,
) -> io::Result<()> {
    let mut text = FIRST.to_owned();
    for place in places {
        text.push('\0');
        text.push_str(place);
    }
    let temp = dir.join(TEMP);
    if disk.exists(&temp) {
        disk.remove_file(&temp)?;
    }
    let file = disk.open(&temp, OpenMode::Create)?;
    file.write_all_at(text.as_bytes(), 0)?;
    file.sync_data()?;
    disk.rename(&temp, &dir.join(MARK))?;
    disk.sync_dir(dir)
}

/// Takes the mark away: a manifest is there, and from now on nothing is to be emptied.
pub(crate) fn unmark(disk: &dyn Disk, dir: &Path) -> io::Result<()> {
    let mark = dir.join(MARK);
    if disk.exists(&mark) {
        disk.remove_file(&mark)?;
        disk.sync_dir(dir)?;
    }
    Ok(())
}

/// The directories that a mark names; `None` where there is no mark.
pub(crate) fn marked(disk: &dyn Disk, dir: &Path) -> io::Result<Option<Vec<String>>> {
    let mark = dir.join(MARK);
    if !disk.exists(&mark) {
        return Ok(None);
    }
    let file = disk.open(&mark, OpenMode::Read)?;
    let mut bytes = vec![0; usize::try_from(file.len()?).map_err(io::Error::other)?];
    file.read_exact_at(&mut bytes, 0)?;
    // A file of that name which is none of ours names nothing that could be emptied.
    let Ok(text) = String::from_utf8(bytes) else {
        return Ok(None);
    };
    let mut parts = text.split('\0');
    Ok((parts.next() == Some(FIRST)).then(|| parts.map(str::to_owned).collect()))
}

/// Empties the directories that a mark names. They themselves stay: they may be mount points, or links that somebody made.
pub(crate) fn clear(disk: &dyn Disk, dir: &Path, places: &[String]) -> io::Result<()> {
    for place in places
        .iter()
        .map(|place| dir.join(place))
        .filter(|place| disk.exists(place))
    {
        for name in disk.list(&place)? {
            let entry = place.join(name);
            disk.remove_file(&entry)
                .or_else(|_| disk.remove_dir_all(&entry))?;
        }
    }
    Ok(())
}
