//! The append-only file that survives the simulator: one JSON line per commit, on disk before it is acknowledged.
//!
//! One thread writes. While it waits for the disk, requests queue their lines; the next write takes all of them at
//! once (group commit), so a disk that syncs a hundred times a second still carries thousands of charges.

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, BufRead, BufReader, Write},
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use anyhow::{Context, bail};
use tokio::sync::oneshot;

use crate::commit::Commit;

/// The way into the file. Cloning it gives another way into the same file.
#[derive(Debug, Clone)]
pub(crate) struct Ledger {
    queue: Arc<Queue>,
}

/// What requests and the writer share.
#[derive(Debug, Default)]
struct Queue {
    batch: Mutex<Batch>,
    filled: Condvar,
}

/// What the writer takes at once. Its size is bounded by the requests in flight: each waits for its own line.
#[derive(Debug, Default)]
struct Batch {
    lines: Vec<u8>,
    waiting: Vec<oneshot::Sender<()>>,
    /// The writer is at the disk with the batch before this one.
    writing: bool,
    /// The file cannot be written any more; nothing may be acknowledged.
    broken: bool,
}

/// The promise that something is on disk.
#[derive(Debug)]
pub(crate) struct Receipt(Option<oneshot::Receiver<()>>);

/// The file can no longer be written: the process is about to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LedgerBroken;

/// Ends when the file can no longer be written, with the reason.
pub(crate) type Failure = oneshot::Receiver<io::Error>;

impl Receipt {
    /// Waits for the disk.
    pub(crate) async fn synced(self) -> Result<(), LedgerBroken> {
        match self.0 {
            None => Ok(()),
            Some(done) => done.await.map_err(|_| LedgerBroken),
        }
    }
}

impl Ledger {
    /// Reads the file, hands every commit to `replay` in order, and starts the writer. Creates the file if there is
    /// none; drops a last line that was never finished; refuses a file that another simulator uses.
    pub(crate) fn open(path: &Path, replay: impl FnMut(Commit)) -> anyhow::Result<(Self, Failure)> {
        let file = OpenOptions::new()
            .read(true)
            .append(true)
            .create(true)
            .open(path)
            .with_context(|| format!("cannot open the ledger {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                bail!("the ledger {} is in use by another provider-simulator", path.display())
            }
            Err(TryLockError::Error(error)) => {
                return Err(error).with_context(|| format!("cannot lock the ledger {}", path.display()));
            }
        }
        load(&file, replay).with_context(|| format!("cannot read the ledger {}", path.display()))?;
        sync_folder(path).with_context(|| format!("cannot sync the folder of {}", path.display()))?;

        let queue = Arc::new(Queue::default());
        let (fail, failure) = oneshot::channel();
        let writer = Arc::clone(&queue);
        std::thread::Builder::new().name("ledger".to_owned()).spawn(move || {
            let error = writer.write_to(file);
            // Nobody listens while the process ends.
            let _ = fail.send(error);
        })?;
        Ok((Self { queue }, failure))
    }

    /// Queues a commit. It is written after everything that was queued before it.
    pub(crate) fn append(&self, commit: &Commit) -> Receipt {
        let mut batch = self.queue.lock();
        let before = batch.lines.len();
        match serde_json::to_writer(&mut batch.lines, commit) {
            Ok(()) => batch.lines.push(b'\n'),
            Err(_) => {
                // Half a line would make the file unreadable.
                batch.lines.truncate(before);
                return Receipt(Some(never()));
            }
        }
        self.queue.wait_for(batch)
    }

    /// A receipt for everything queued so far: what a reader needs before it shows what it saw.
    pub(crate) fn barrier(&self) -> Receipt {
        let batch = self.queue.lock();
        if batch.lines.is_empty() && !batch.writing && !batch.broken {
            return Receipt(None);
        }
        self.queue.wait_for(batch)
    }
}

impl Queue {
    fn lock(&self) -> MutexGuard<'_, Batch> {
        // Every change of a batch leaves it whole, so a panic elsewhere does not spoil it.
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_for(&self, mut batch: MutexGuard<'_, Batch>) -> Receipt {
        if batch.broken {
            return Receipt(Some(never()));
        }
        let (done, receipt) = oneshot::channel();
        batch.waiting.push(done);
        drop(batch);
        self.filled.notify_one();
        Receipt(Some(receipt))
    }

    /// The writer: returns only when the disk refuses.
    fn write_to(&self, mut file: File) -> io::Error {
        let mut lines = Vec::new();
        loop {
            let waiting = {
                let mut batch = self.lock();
                batch.writing = false;
                while batch.waiting.is_empty() {
                    batch = self.filled.wait(batch).unwrap_or_else(PoisonError::into_inner);
                }
                batch.writing = true;
                lines.clear();
                std::mem::swap(&mut lines, &mut batch.lines);
                std::mem::take(&mut batch.waiting)
            };
            if !lines.is_empty()
                && let Err(error) = file.write_all(&lines).and_then(|()| file.sync_data())
            {
                let mut batch = self.lock();
                batch.broken = true;
                batch.waiting.clear();
                return error;
            }
            for done in waiting {
                // A caller that left needs no receipt.
                let _ = done.send(());
            }
        }
    }
}

/// A promise that nobody will keep.
fn never() -> oneshot::Receiver<()> {
    oneshot::channel().1
}

/// Reads all commits and cuts off what a crash left unfinished.
fn load(file: &File, mut replay: impl FnMut(Commit)) -> anyhow::Result<()> {
    let mut reader = BufReader::new(file);
    let mut line = Vec::new();
    let mut number = 0_u64;
    let mut complete = 0_u64;
    loop {
        line.clear();
        let length = reader.read_until(b'\n', &mut line)?;
        if length == 0 {
            return Ok(());
        }
        if line.last() != Some(&b'\n') {
            // It was never synced whole, so nobody was told of it.
            file.set_len(complete)?;
            file.sync_data()?;
            return Ok(());
        }
        number = number.saturating_add(1);
        replay(serde_json::from_slice(&line).with_context(|| format!("line {number} is damaged"))?);
        complete = complete.saturating_add(u64::try_from(length)?);
    }
}

/// A new file survives a power cut only once its folder is on disk as well.
fn sync_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or_else(|| Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(at: u64) -> Commit {
        Commit {
            at,
            effects: Vec::new(),
            intent: None,
            refund: None,
            error: None,
            operation_id: None,
            key: None,
            answered: true,
        }
    }

    fn times(path: &Path) -> anyhow::Result<Vec<u64>> {
        let mut times = Vec::new();
        // The writer of this ledger keeps the file locked: each test opens a file once for good.
        load(&File::options().read(true).write(true).open(path)?, |commit| times.push(commit.at))?;
        Ok(times)
    }

    #[tokio::test]
    async fn what_was_acknowledged_is_read_back_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let (ledger, _failure) = Ledger::open(&path, |_| {}).unwrap();
        let receipts: Vec<_> = (1..=100).map(|at| ledger.append(&commit(at))).collect();
        ledger.barrier().synced().await.unwrap();
        assert_eq!(times(&path).unwrap(), (1..=100).collect::<Vec<_>>());
        for receipt in receipts {
            receipt.synced().await.unwrap();
        }
    }

    #[test]
    fn a_torn_last_line_is_dropped_for_good() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let whole = serde_json::to_string(&commit(1)).unwrap();
        std::fs::write(&path, format!("{whole}\n{}", &whole[..20])).unwrap();
        assert_eq!(times(&path).unwrap(), [1]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{whole}\n"));
    }

    #[test]
    fn a_damaged_line_in_the_middle_is_not_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        std::fs::write(&path, "{\"at\":\n{}\n").unwrap();
        let error = format!("{:#}", times(&path).unwrap_err());
        assert!(error.contains("line 1 is damaged"), "{error}");
    }

    #[test]
    fn two_simulators_cannot_share_a_ledger() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        let _first = Ledger::open(&path, |_| {}).unwrap();
        let error = Ledger::open(&path, |_| {}).unwrap_err().to_string();
        assert!(error.contains("in use"), "{error}");
    }
}
