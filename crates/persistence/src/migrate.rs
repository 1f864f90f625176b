//! The schema: applied by the owner, compared by the service.

use crate::{Store, StoreError};
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnectOptions;
use sqlx::{Connection, PgConnection};
use std::borrow::Cow;
use std::time::Duration;

/// Every migration of this version, up and down.
static MIGRATOR: Migrator = sqlx::migrate!("../../migrations");

/// Why a migration was not carried out.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The database cannot be reached, or not be read.
    #[error("{0}")]
    Database(#[from] sqlx::Error),
    /// A migration failed; it was rolled back as a whole.
    #[error("{0}")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The way down would lose data. Nothing was reverted.
    #[error("reverting migration {version} loses {what}; if that is meant, say so with --lose-data")]
    WouldLose {
        /// The migration.
        version: i64,
        /// What is lost.
        what: &'static str,
    },
}

/// One migration, and whether the database has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Its number.
    pub version: i64,
    /// Its name.
    pub name: Cow<'static, str>,
    /// Whether it was applied.
    pub applied: bool,
}

/// Which way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Towards the schema of this version.
    Up,
    /// Back.
    Down,
}

/// What is to be done to the schema.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    /// Up or down.
    pub direction: Direction,
    /// At most so many migrations; all without it.
    pub steps: Option<usize>,
    /// Only says what would be done.
    pub dry_run: bool,
    /// Goes down although data is lost with it.
    pub lose_data: bool,
}

/// Carries a plan out, and returns its migrations in the order they were made.
///
/// # Errors
/// The database cannot be reached, a migration fails, or data would be lost with it.
pub async fn migrate(options: &PgConnectOptions, plan: Plan) -> Result<Vec<Step>, MigrateError> {
    let mut connection = PgConnection::connect_with(options).await?;
    if !plan.dry_run {
        wait_for_others(&mut connection).await?;
    }
    let mut steps: Vec<Step> = read_status(&mut connection).await?;
    steps.retain(|step| step.applied == (plan.direction == Direction::Down));
    if plan.direction == Direction::Down {
        steps.reverse();
    }
    steps.truncate(plan.steps.unwrap_or(usize::MAX));
    if plan.direction == Direction::Down && !plan.lose_data {
        // of all of them, before the first
        for step in &steps {
            refuse_to_lose(&mut connection, step).await?;
        }
    }
    if !plan.dry_run {
        for step in &steps {
            take(&mut connection, step, plan.direction).await?;
        }
    }
    connection.close().await?;
    Ok(steps)
}

/// One migration. It gives up when it waits long for a lock, because everybody behind it waits as well, and tries again
/// a little later.
async fn take(connection: &mut PgConnection, step: &Step, direction: Direction) -> Result<(), MigrateError> {
    let mut tried = 1;
    loop {
        // what runs without a transaction builds indexes concurrently: it waits without being in anybody's way, and what
        // it leaves when it gives up is an invalid index
        let timeout = if expected().any(|m| m.version == step.version && m.no_tx) {
            "SET lock_timeout = 0"
        } else {
            LOCK_TIMEOUT
        };
        sqlx::raw_sql(timeout).execute(&mut *connection).await?;
        let taken = match direction {
            Direction::Up => MIGRATOR.run_direct(Some(step.version), &mut *connection, false).await,
            Direction::Down => MIGRATOR.undo(&mut *connection, step.version.saturating_sub(1)).await,
        };
        match taken {
            Err(error) if tried < TRIES && gave_up_waiting(&error) => {
                tried = tried.saturating_add(1);
                tokio::time::sleep(TRY_AGAIN).await;
            }
            taken => return Ok(taken?),
        }
    }
}

/// How long a migration waits for a lock, how often it tries, and how long others go first in between.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '2s'";
const TRIES: u32 = 15;
const TRY_AGAIN: Duration = Duration::from_secs(1);

fn gave_up_waiting(error: &sqlx::migrate::MigrateError) -> bool {
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        if let Some(sqlx::Error::Database(database)) = error.downcast_ref::<sqlx::Error>() {
            return database.code().as_deref() == Some("55P03");
        }
        source = error.source();
    }
    false
}

/// In a `.down.sql`: what is lost with it, and a query that says whether there is any.
const LOSES: &str = "-- loses ";

/// What a migration's way down says it loses: a name and a query.
fn losses(version: i64) -> impl Iterator<Item = (&'static str, &'static str)> {
    let down = MIGRATOR
        .iter()
        .find(move |m| m.version == version && m.migration_type == MigrationType::ReversibleDown);
    let lines = down.into_iter().flat_map(|migration| migration.sql.as_str().lines());
    lines.filter_map(|line| line.strip_prefix(LOSES)?.split_once(": "))
}

async fn refuse_to_lose(connection: &mut PgConnection, step: &Step) -> Result<(), MigrateError> {
    for (what, query) in losses(step.version) {
        if sqlx::query_scalar::<_, bool>(query).fetch_one(&mut *connection).await? {
            return Err(MigrateError::WouldLose { version: step.version, what });
        }
    }
    Ok(())
}

/// One migrates at a time; the lock ends with the connection. It is asked for again and again instead of waited for: a
/// statement that waits has a snapshot, and an index that is built concurrently waits for every snapshot to end.
async fn wait_for_others(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    const ASK_AGAIN: Duration = Duration::from_millis(100);
    const TRY: &str = "SELECT pg_try_advisory_lock(hashtext('payments'), hashtext('migrate'))";
    while !sqlx::query_scalar::<_, bool>(TRY).fetch_one(&mut *connection).await? {
        tokio::time::sleep(ASK_AGAIN).await;
    }
    Ok(())
}

/// Every migration of this version, and whether the database has it.
///
/// # Errors
/// The database cannot be reached.
pub async fn status(options: &PgConnectOptions) -> Result<Vec<Step>, MigrateError> {
    let mut connection = PgConnection::connect_with(options).await?;
    let steps = read_status(&mut connection).await?;
    connection.close().await?;
    Ok(steps)
}

async fn read_status(connection: &mut PgConnection) -> Result<Vec<Step>, MigrateError> {
    let table: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?;
    let applied: Vec<i64> = match table {
        true => {
            sqlx::query_scalar("SELECT version FROM _sqlx_migrations WHERE success")
                .fetch_all(connection)
                .await?
        }
        false => Vec::new(),
    };
    Ok(expected()
        .map(|m| Step {
            version: m.version,
            name: m.description.clone(),
            applied: applied.contains(&m.version),
        })
        .collect())
}

fn expected() -> impl Iterator<Item = &'static Migration> {
    MIGRATOR.iter().filter(|m| m.migration_type != MigrationType::ReversibleDown)
}

/// How the database's schema differs from the one this version was built for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SchemaMismatch {
    /// Nothing was ever applied.
    #[error("the schema is missing; run `migrate up`")]
    Empty,
    /// A migration of this version was not applied.
    #[error("migration {0} is not applied; run `migrate up`")]
    Behind(i64),
    /// A migration was applied with another content than this version's.
    #[error("migration {0} was applied with another content than this version's")]
    Different(i64),
}

impl Store {
    /// Compares the database's schema with this version's. Newer migrations do not count: a release is preceded by
    /// migrations that the version before it can live with.
    ///
    /// # Errors
    /// The database; a schema that differs is an answer, not an error.
    pub async fn check_schema(&self) -> Result<Result<(), SchemaMismatch>, StoreError> {
        let table: bool = sqlx::query_scalar("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
            .fetch_one(&self.health)
            .await?;
        if !table {
            return Ok(Err(SchemaMismatch::Empty));
        }
        let applied: Vec<(i64, Vec<u8>)> =
            sqlx::query_as("SELECT version, checksum FROM _sqlx_migrations WHERE success")
                .fetch_all(&self.health)
                .await?;
        Ok(compare(&applied))
    }
}

fn compare(applied: &[(i64, Vec<u8>)]) -> Result<(), SchemaMismatch> {
    if applied.is_empty() {
        return Err(SchemaMismatch::Empty);
    }
    for migration in expected() {
        match applied.iter().find(|(version, _)| *version == migration.version) {
            None => return Err(SchemaMismatch::Behind(migration.version)),
            Some((_, checksum)) if checksum[..] != *migration.checksum => {
                return Err(SchemaMismatch::Different(migration.version));
            }
            Some(_) => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied() -> Vec<(i64, Vec<u8>)> {
        expected().map(|m| (m.version, m.checksum.to_vec())).collect()
    }

    #[test]
    fn the_schema_is_compared_migration_by_migration() {
        assert_eq!(compare(&applied()), Ok(()));
        assert_eq!(compare(&[]), Err(SchemaMismatch::Empty));

        let mut behind = applied();
        let last = behind.pop().unwrap().0;
        assert_eq!(compare(&behind), Err(SchemaMismatch::Behind(last)));

        let mut different = applied();
        different[0].1 = vec![0];
        assert_eq!(compare(&different), Err(SchemaMismatch::Different(1)));

        let mut newer = applied();
        newer.push((last + 1, vec![1]));
        assert_eq!(compare(&newer), Ok(()), "the release before lives with the migrations of the next");
    }

    #[test]
    fn what_a_way_down_drops_it_says() {
        for down in MIGRATOR.iter().filter(|m| m.migration_type == MigrationType::ReversibleDown) {
            let sql = down.sql.as_str();
            let drops = sql.matches("DROP TABLE").count() + sql.matches("DROP COLUMN").count();
            assert_eq!(losses(down.version).count(), drops, "{}", down.description);
        }
    }

    #[test]
    fn every_migration_can_be_reverted() {
        for migration in expected() {
            assert!(
                MIGRATOR
                    .iter()
                    .any(|m| m.version == migration.version
                        && m.migration_type == MigrationType::ReversibleDown),
                "{} has no .down.sql",
                migration.description
            );
        }
    }
}
