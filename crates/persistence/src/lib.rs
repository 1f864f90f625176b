//! All SQL of the service.
//!
//! [`Store`] has one method for each thing that must happen as a whole: one method is one transaction, and nearly always
//! one statement and one round trip. Races are decided by the database, by unique constraints and guarded UPDATEs,
//! never by looking first and acting afterwards.
//!
//! Every statement names the merchant for every table it touches, so that merchants are isolated and the tables could be
//! distributed by merchant. The exceptions are all listed in [`operations`]: what is due, what is swept, and what is compared
//! with the provider.

mod error;
pub mod events;
pub mod idempotency;
pub mod merchants;
pub mod migrate;
pub mod operations;
pub mod payments;
#[cfg(feature = "faults")]
mod planted;
pub mod reconcile;
pub mod refunds;
mod span;

pub use error::StoreError;

use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use std::time::Duration;

/// How long a request waits for a connection of the pool before it is told that the database is unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
/// A connection that rested so long is asked whether it still lives before it is used.
const IDLE_BEFORE_CHECK: Duration = Duration::from_secs(1);

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: PgPool,
}

impl Store {
    /// A store on at most so many connections. It connects when first used, so a database that is not there yet does
    /// not stop the program. It is to be called within a tokio runtime.
    pub fn open(options: PgConnectOptions, connections: u32) -> Self {
        // the server gives up before the caller does, so that no statement outlives everybody who waits for it
        let options = options.application_name("payments").options([
            ("statement_timeout", "5000"),
            ("lock_timeout", "3000"),
            ("idle_in_transaction_session_timeout", "10000"),
            // Planned for the tables as they are now, also the foreign keys' own look-ups. On an empty table every index
            // that begins with merchant_id costs the same, and a plan that is kept from then reads all of a merchant's
            // rows for each one, until the first ANALYZE: on launch day, of all days.
            ("plan_cache_mode", "force_custom_plan"),
        ]);
        let pool = PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(ACQUIRE_TIMEOUT)
            // a check before every use would be a round trip for every statement
            .test_before_acquire(false)
            .before_acquire(|connection, meta| {
                Box::pin(async move {
                    if meta.idle_for >= IDLE_BEFORE_CHECK {
                        sqlx::Connection::ping(connection).await?;
                    }
                    Ok(true)
                })
            })
            .connect_lazy_with(options);
        Self { pool }
    }

    /// Whether the database answers.
    ///
    /// # Errors
    /// It does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        sqlx::query("SELECT 1").execute(&self.pool).await?;
        Ok(())
    }

    /// The most connections there can be.
    #[must_use]
    pub fn most_connections(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    /// All connections, and how many of them are at rest.
    #[must_use]
    pub fn connections(&self) -> (u32, usize) {
        (self.pool.size(), self.pool.num_idle())
    }

    /// Waits until every connection is returned, and closes them.
    pub async fn close(&self) {
        self.pool.close().await;
    }
}
