//! Exclusive use of a directory.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result};

/// A lock on the file `lock` in a directory, given back when it is dropped.
///
/// Closing the file would not do: a child that is just being started holds a copy of every descriptor until it
/// executes its program, and the lock would live as long.
#[derive(Debug)]
pub(crate) struct DirectoryLock(File);

impl DirectoryLock {
    /// None while somebody else has it.
    pub(crate) fn take(directory: &Path) -> Result<Option<DirectoryLock>> {
        let path = directory.join("lock");
        let cannot = || format!("cannot lock {}", path.display());
        let file =
            OpenOptions::new().create(true).append(true).mode(0o600).open(&path).with_context(cannot)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(DirectoryLock(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).with_context(cannot),
        }
    }
}

impl Drop for DirectoryLock {
    fn drop(&mut self) {
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_given_back_even_while_the_file_is_open_elsewhere() {
        let directory = tempfile::tempdir().unwrap();
        let lock = DirectoryLock::take(directory.path()).unwrap().unwrap();
        assert!(DirectoryLock::take(directory.path()).unwrap().is_none());
        let _copy = lock.0.try_clone().unwrap();

        drop(lock);

        assert!(DirectoryLock::take(directory.path()).unwrap().is_some());
    }
}
