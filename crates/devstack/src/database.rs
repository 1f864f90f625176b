//! A database of its own for every test.
//!
//! All tests of a run share one server (`database/server.rs`). A test's database is a copy of a template that has been
//! migrated once, which takes milliseconds, so that no test needs to clean up after itself or to fear its neighbours.

mod server;

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};
use sqlx::migrate::Migrator;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

use crate::login;
use server::Server;

/// Names of tests' databases begin with it and go on with the second of their creation.
const DATABASE_PREFIX: &str = "test_";
/// A test that takes longer than this has hung, and its database is swept.
const STALE_AFTER: Duration = Duration::from_secs(60 * 60);
/// A template that is swept too early is made again.
const TEMPLATE_STALE_AFTER: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// A database that belongs to one test. It is dropped with this value.
///
/// ```no_run
/// # async fn example() -> anyhow::Result<()> {
/// let database = devstack::TestDatabase::create("../../migrations".as_ref()).await?;
/// let pool = sqlx::PgPool::connect(database.service_url()).await?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct TestDatabase {
    name: String,
    owner_url: String,
    service_url: String,
    dropped: bool,
}

impl TestDatabase {
    /// A database on which all of `migrations` have run: a folder of `NNNN_name.up.sql` and `.down.sql`.
    ///
    /// # Errors
    ///
    /// When there is no PostgreSQL and none can be had, or a migration fails.
    pub async fn create(migrations: &Path) -> Result<TestDatabase> {
        let migrator = Migrator::new(migrations)
            .await
            .with_context(|| format!("cannot read the migrations in {}", migrations.display()))?;
        let server = server::of_this_run().await?;
        let mut connection = login::connect_common(&server.owner_url).await?;
        let template = template_name(&migrator);
        if !is_template(&mut connection, &template).await? {
            make_template(&server, &template, &migrator).await?;
        }
        TestDatabase::copy(server, connection, &template).await
    }

    /// A database without any table, for tests of the migrations themselves.
    ///
    /// # Errors
    ///
    /// When there is no PostgreSQL and none can be had.
    pub async fn empty() -> Result<TestDatabase> {
        let server = server::of_this_run().await?;
        let connection = login::connect_common(&server.owner_url).await?;
        TestDatabase::copy(server, connection, "template0").await
    }

    /// The database's name on its server.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The URL of the role that owns the database and may do anything in it.
    pub fn owner_url(&self) -> &str {
        &self.owner_url
    }

    /// The URL of the role that the service logs in as: it may do what the migrations granted, and nothing else.
    pub fn service_url(&self) -> &str {
        &self.service_url
    }

    /// Makes sure that the service's role is what the migrations made it, after a test has migrated by itself.
    ///
    /// # Errors
    ///
    /// When the server cannot be asked.
    pub async fn grant_service_role(&self) -> Result<()> {
        login::ensure(&self.owner_url).await
    }

    /// Drops the database now, connections to it included, and says when that fails.
    ///
    /// # Errors
    ///
    /// When the server cannot be asked.
    pub async fn close(mut self) -> Result<()> {
        self.dropped = true;
        drop_database(&self.owner_url, &self.name).await
    }

    async fn copy(server: Server, mut connection: PgConnection, template: &str) -> Result<TestDatabase> {
        let now = seconds_since_epoch()?;
        let name = format!("{DATABASE_PREFIX}{now}_{}", Uuid::new_v4().simple());
        // Copying files needs two checkpoints, which cost nothing without fsync and a lot with it.
        let strategy = if server.is_kept { "WAL_LOG" } else { "FILE_COPY" };
        let statement = format!("CREATE DATABASE {name} TEMPLATE {template} STRATEGY {strategy}");
        login::execute(&mut connection, statement).await?;
        connection.close().await?;
        let owner_url = login::with_database(&server.owner_url, &name)?;
        let service_url = login::service_url(&owner_url)?;
        Ok(TestDatabase { name, owner_url, service_url, dropped: false })
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if self.dropped {
            return;
        }
        let (url, name) = (std::mem::take(&mut self.owner_url), std::mem::take(&mut self.name));
        // A destructor cannot await, and the test's own runtime may be ending: this needs one of its own. What fails
        // here is swept by a later run.
        let dropping = std::thread::spawn(move || -> Result<()> {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(drop_database(&url, &name))
        });
        let _ = dropping.join();
    }
}

async fn drop_database(url: &str, name: &str) -> Result<()> {
    let mut connection = login::connect_common(url).await?;
    login::execute(&mut connection, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await?;
    connection.close().await?;
    Ok(())
}

/// Drops what is left on a server that outlives its runs: by tests that were killed, and templates of migrations that
/// have changed since.
async fn sweep(connection: &mut PgConnection) -> Result<()> {
    // Nobody makes a template meanwhile, so an unfinished one belongs to nobody.
    login::lock(connection).await?;
    let now = i64::try_from(seconds_since_epoch()?)?;
    let stale: Vec<String> = sqlx::query_scalar(
        "SELECT datname::text FROM pg_database
         WHERE substring(datname FROM '^test_([0-9]{1,12})_')::bigint < $1
            OR datname ~ '^template_[0-9a-f]{16}_unfinished$'
            OR datname ~ '^template_[0-9a-f]{16}$'
               AND substring(shobj_description(oid, 'pg_database') FROM '^[0-9]{1,12}$')::bigint < $2",
    )
    .bind(now - i64::try_from(STALE_AFTER.as_secs())?)
    .bind(now - i64::try_from(TEMPLATE_STALE_AFTER.as_secs())?)
    .fetch_all(&mut *connection)
    .await?;
    for name in stale {
        // What somebody uses after all stays.
        let _ = login::execute(connection, format!("ALTER DATABASE {name} WITH IS_TEMPLATE false")).await;
        let _ = login::execute(connection, format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
    }
    Ok(())
}

/// The template's name is its content: a server that is kept never serves a stale one.
fn template_name(migrator: &Migrator) -> String {
    let mut hash = Sha256::new();
    for migration in migrator.iter() {
        hash.update(migration.version.to_be_bytes());
        hash.update([u8::from(migration.migration_type.is_down_migration())]);
        hash.update(&migration.checksum);
    }
    let short: String = hash.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("template_{short}")
}

async fn is_template(connection: &mut PgConnection, name: &str) -> Result<bool> {
    let exists =
        sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1 AND datistemplate)")
            .bind(name)
            .fetch_one(connection)
            .await?;
    Ok(exists)
}

/// Migrates a database once and closes it: a database that anybody is connected to cannot be copied.
async fn make_template(server: &Server, name: &str, migrator: &Migrator) -> Result<()> {
    let mut connection = login::connect_common(&server.owner_url).await?;
    login::lock(&mut connection).await?;
    if !is_template(&mut connection, name).await? {
        let unfinished = format!("{name}_unfinished");
        login::execute(&mut connection, format!("DROP DATABASE IF EXISTS {unfinished} WITH (FORCE)")).await?;
        login::execute(&mut connection, format!("CREATE DATABASE {unfinished} TEMPLATE template0")).await?;
        migrate(&login::with_database(&server.owner_url, &unfinished)?, migrator).await?;
        login::ensure_locked(&mut connection, &server.owner_url).await?;
        // For the sweep: PostgreSQL does not remember when a database was made.
        let made_at = format!("COMMENT ON DATABASE {unfinished} IS '{}'", seconds_since_epoch()?);
        login::execute(&mut connection, made_at).await?;
        // Renamed when complete: whoever sees the name sees all migrations.
        login::execute(&mut connection, format!("ALTER DATABASE {unfinished} RENAME TO {name}")).await?;
        let closed = format!("ALTER DATABASE {name} WITH IS_TEMPLATE true ALLOW_CONNECTIONS false");
        login::execute(&mut connection, closed).await?;
    }
    connection.close().await?;
    Ok(())
}

async fn migrate(url: &str, migrator: &Migrator) -> Result<()> {
    let mut connection = login::connect(url).await?;
    let result = migrator.run_direct(None, &mut connection, false).await;
    connection.close().await?;
    result.map_err(|error| anyhow!(error).context("a migration fails"))
}

fn seconds_since_epoch() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
}
