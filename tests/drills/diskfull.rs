//! Shows what a database does whose disk is full: everything that would write is refused and says when to come back, reads
//! go on, and once there is space again so do payments.
//!
//! The tables are on a small file system of their own, which needs root. The server's log of changes is elsewhere: when that
//! is full, PostgreSQL stops, which is the drill `kills`.

use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use e2e::{Figures, World, WorldOptions, eventually, payment};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::process::Command;
use uuid::Uuid;

/// Small enough to be filled at once.
const SIZE: &str = "size=64m";
/// How long the disk stays full.
const LASTING: Duration = Duration::from_secs(5);
/// From there being space to the first payment.
const RECOVERY: Duration = Duration::from_secs(3);
const SOON: Duration = Duration::from_secs(30);

/// A disk that is full: nothing is begun by halves, and all is well when there is space again. Needs root.
#[derive(Debug, Args)]
#[command(after_help = "Example: drill diskfull")]
pub struct Options {}

/// Runs the drill.
///
/// # Errors
/// It cannot be run, or a bound is missed.
pub async fn run(Options {}: Options) -> Result<()> {
    let world = WorldOptions::default().own_cluster().start().await?;
    let Some(disk) = Disk::mount(&world).await? else {
        println!("skipped: a file system of its own can be mounted by root only");
        return world.stop().await;
    };
    let figures = filled(&world, &disk).await;
    let finished = match &figures {
        Ok(_) => world.finish().await,
        Err(_) => world.stop().await,
    };
    disk.unmount().await?;
    let figures = figures?;
    finished?;
    println!("a database whose disk is full:\n{figures}");
    figures.verdict()
}

async fn filled(world: &World, disk: &Disk) -> Result<Figures> {
    let mut figures = Figures::default();
    ensure!(create(world).await? == 201, "the service does not work at all");
    disk.fill()?;
    let (full, mut created, mut refused) = (Instant::now(), 0, 0);
    // what is left in pages that are there already is still written
    while refused == 0 || full.elapsed() < LASTING {
        ensure!(full.elapsed() < SOON, "{created} payments fit on a full disk");
        match create(world).await? {
            201 => created += 1,
            503 => refused += 1,
            other => bail!("a full disk is answered {other}"),
        }
    }
    figures.tell("payments in what was left", created);
    figures.at_least("payments refused", refused, 1);
    figures.exactly("/readyz says", readiness(world).await?, "disk full".to_owned());
    figures.exactly("a list is answered", world.api.get("/v1/payments").await?.status, 200);
    figures.holds("the log says so", world.log(0)?.contains("the database takes no writes"));
    disk.empty()?;
    let space = Instant::now();
    eventually(SOON, "a payment", async || Ok(create(world).await? == 201)).await?;
    figures.at_most("ms until a payment", space.elapsed().as_millis(), RECOVERY.as_millis());
    eventually(SOON, "ready", async || Ok(readiness(world).await? == "ok")).await?;
    figures.tell("ms until ready", space.elapsed().as_millis());
    Ok(figures)
}

async fn create(world: &World) -> Result<u16> {
    let key = Uuid::new_v4().to_string();
    Ok(world.api.create(&key, &payment(&key)).await?.status)
}

async fn readiness(world: &World) -> Result<String> {
    let url = format!("{}/readyz", world.stack.ops_url(0)?);
    let answer = world.api.send(world.api.http.get(url)).await?;
    Ok(answer.json()["checks"]["database"].as_str().unwrap_or_default().to_owned())
}

/// A small file system with the tables on it.
struct Disk {
    path: PathBuf,
}

impl Disk {
    /// `None`: it cannot be mounted.
    async fn mount(world: &World) -> Result<Option<Self>> {
        let data: String = sqlx::query_scalar("SHOW data_directory").fetch_one(&world.pool).await?;
        let path = PathBuf::from(format!("/var/tmp/payments-disk-full-{}", std::process::id()));
        fs::create_dir_all(&path)?;
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", SIZE, "tmpfs"]).arg(&path).status().await;
        if !mounted.is_ok_and(|status| status.success()) {
            fs::remove_dir(&path)?;
            return Ok(None);
        }
        let disk = Self { path };
        match disk.move_tables(world, Path::new(&data)).await {
            Ok(()) => Ok(Some(disk)),
            Err(error) => {
                disk.unmount().await?;
                Err(error)
            }
        }
    }

    async fn move_tables(&self, world: &World, data: &Path) -> Result<()> {
        let owner = fs::metadata(data).with_context(|| data.display().to_string())?;
        chown(&self.path, Some(owner.uid()), Some(owner.gid()))?;
        for statement in [
            format!("CREATE TABLESPACE small LOCATION '{}'", self.path.display()),
            "ALTER TABLE ALL IN TABLESPACE pg_default SET TABLESPACE small".to_owned(),
            "ALTER INDEX ALL IN TABLESPACE pg_default SET TABLESPACE small".to_owned(),
        ] {
            sqlx::raw_sql(sqlx::AssertSqlSafe(statement)).execute(&world.pool).await?;
        }
        Ok(())
    }

    fn filler(&self) -> PathBuf {
        self.path.join("filler")
    }

    /// Leaves no byte.
    fn fill(&self) -> Result<()> {
        let mut file = fs::File::create(self.filler())?;
        match std::io::copy(&mut std::io::repeat(0), &mut file) {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(()),
            other => bail!("the disk is not filled: {other:?}"),
        }
    }

    fn empty(&self) -> Result<()> {
        Ok(fs::remove_file(self.filler())?)
    }

    /// The server has to be stopped before.
    async fn unmount(self) -> Result<()> {
        let status = Command::new("umount").arg("-l").arg(&self.path).status().await?;
        ensure!(status.success(), "{} is still mounted", self.path.display());
        Ok(fs::remove_dir(&self.path)?)
    }
}
