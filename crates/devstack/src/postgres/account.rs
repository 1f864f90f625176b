//! The user a server runs as: PostgreSQL refuses to be root.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use nix::unistd::{Uid, User};
use sha2::{Digest, Sha256};

use crate::Report;
use crate::process::Account;

/// Whom to become, None when the current user will do.
pub(super) fn for_server() -> Result<Option<Account>> {
    if !Uid::effective().is_root() {
        return Ok(None);
    }
    for name in ["postgres", "nobody"] {
        if let Some(user) = User::from_name(name)? {
            return Ok(Some(Account { uid: user.uid.as_raw(), gid: user.gid.as_raw() }));
        }
    }
    bail!("PostgreSQL does not run as root, and there is neither a user postgres nor a user nobody to become")
}

/// Gives `path` to the server's user.
pub(super) fn hand_over(path: &Path, account: Option<Account>) -> Result<()> {
    if let Some(account) = account {
        chown(path, Some(account.uid), Some(account.gid))
            .with_context(|| format!("cannot give {} to user {}", path.display(), account.uid))?;
    }
    Ok(())
}

/// Makes `wanted` a directory in which `account` can keep a cluster, or another one where it cannot get there: a
/// checkout below `/root` is closed to everyone else, and opening it is not ours to do.
pub(super) fn directory_for(wanted: &Path, account: Option<Account>, report: Report) -> Result<PathBuf> {
    make_private(wanted)?;
    let wanted = wanted.canonicalize()?;
    let Some(account) = account else { return Ok(wanted) };
    // Folders shared with a virtual machine's host cannot be given away.
    if hand_over(&wanted, Some(account)).is_ok() && can_enter(&wanted, account)? {
        return Ok(wanted);
    }
    let elsewhere = elsewhere(&wanted);
    // The name can be guessed and anyone may write in /var/tmp, so a directory somebody else made is not trusted.
    if let Ok(found) = fs::symlink_metadata(&elsewhere)
        && (!found.is_dir() || ![0, account.uid].contains(&found.uid()))
    {
        bail!("{} exists and is not ours; remove it", elsewhere.display());
    }
    make_private(&elsewhere)?;
    hand_over(&elsewhere, Some(account))?;
    if !can_enter(&elsewhere, account)? {
        bail!("user {} can enter neither {} nor {}", account.uid, wanted.display(), elsewhere.display());
    }
    report(&format!(
        "PostgreSQL does not run as root and user {} may not enter {}: its data is in {}",
        account.uid,
        wanted.display(),
        elsewhere.display()
    ));
    Ok(elsewhere)
}

fn elsewhere(wanted: &Path) -> PathBuf {
    let hash = Sha256::digest(wanted.as_os_str().as_encoded_bytes());
    let short: String = hash.iter().take(6).map(|byte| format!("{byte:02x}")).collect();
    PathBuf::from(format!("/var/tmp/payments-devstack-{}-{short}", Uid::effective()))
}

fn make_private(directory: &Path) -> Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o711)
        .create(directory)
        .with_context(|| format!("cannot create {}", directory.display()))?;
    fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
    Ok(())
}

/// Asks the system rather than adding up permission bits: it also knows access lists and mount options.
fn can_enter(directory: &Path, account: Account) -> Result<bool> {
    use std::os::unix::process::CommandExt;
    let status = Command::new("/bin/sh")
        .args(["-c", r#"cd "$0" && test -w ."#])
        .arg(directory)
        .current_dir("/")
        .uid(account.uid)
        .gid(account.gid)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("cannot run /bin/sh")?;
    Ok(status.success())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::silent;

    #[test]
    fn a_closed_parent_sends_the_cluster_elsewhere() {
        let Some(account) = for_server().unwrap() else { return };
        let closed = tempfile::tempdir().unwrap();
        fs::set_permissions(closed.path(), fs::Permissions::from_mode(0o700)).unwrap();

        let chosen = directory_for(&closed.path().join("postgres"), Some(account), silent).unwrap();

        assert!(chosen.starts_with("/var/tmp"), "{}", chosen.display());
        assert_eq!(fs::metadata(&chosen).unwrap().uid(), account.uid);
        // The same wish leads to the same place, or a second start would not find its data.
        assert_eq!(directory_for(&closed.path().join("postgres"), Some(account), silent).unwrap(), chosen);
        fs::remove_dir_all(chosen).unwrap();
    }

    #[test]
    fn an_open_parent_is_used_as_wished() {
        let open = tempfile::tempdir().unwrap();
        fs::set_permissions(open.path(), fs::Permissions::from_mode(0o711)).unwrap();
        let wanted = open.path().join("postgres");

        let chosen = directory_for(&wanted, for_server().unwrap(), silent).unwrap();

        assert_eq!(chosen, wanted.canonicalize().unwrap());
    }
}
