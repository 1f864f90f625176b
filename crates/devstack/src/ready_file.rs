//! The file that tells other programs where everything is.

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result};
use devstack::stack::Description;

/// A file that is either absent or complete.
pub(crate) struct ReadyFile {
    path: PathBuf,
}

impl ReadyFile {
    /// Removes what an earlier stack left: whoever waits for the file must not read that.
    pub(crate) fn new(path: PathBuf) -> Result<ReadyFile> {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("cannot replace {}", path.display()))
            }
            _ => Ok(ReadyFile { path }),
        }
    }

    /// Replaces its content at one stroke. Only the owner may read it: it contains passwords.
    pub(crate) fn write(&self, description: &Description) -> Result<()> {
        self.replace(&serde_json::to_vec(description)?)
            .with_context(|| format!("cannot write {}", self.path.display()))
    }

    pub(crate) fn remove(&self) {
        let _ = fs::remove_file(&self.path);
    }

    fn replace(&self, content: &[u8]) -> Result<()> {
        let mut name = self.path.file_name().context("it names no file")?.to_owned();
        name.push(format!(".{}", std::process::id()));
        let unfinished = self.path.with_file_name(name);
        let mut file =
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&unfinished)?;
        file.write_all(content)?;
        file.write_all(b"\n")?;
        fs::rename(&unfinished, &self.path)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn is_replaced_whole_and_private() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ready.json");
        fs::write(&path, "of an earlier stack").unwrap();

        let file = ReadyFile::new(path.clone()).unwrap();
        assert!(!path.exists());
        file.replace(b"{}").unwrap();
        file.replace(b"[]").unwrap();

        assert_eq!(fs::read_to_string(&path).unwrap(), "[]\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(directory.path().read_dir().unwrap().count(), 1);
        file.remove();
        assert!(!path.exists());
    }
}
