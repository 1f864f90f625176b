//! All SQL of the service.
//!
//! [`Store`] has one method for each thing that must happen as a whole: one method is one transaction, and nearly always
//! one statement and one round trip. Races are decided by the database, by unique constraints and guarded UPDATEs,
//! never by looking first and acting afterwards.
//!
//! Every statement names the merchant for every table it touches, so that merchants are isolated and the tables could be
//! distributed by merchant. The exceptions are all listed in [`operations`]: what is due, what is swept, and what is compared
//! with the provider.

mod connections;
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

pub use connections::Pooler;
pub use error::{Condition, StoreError};

use connections::{Connections, Limits};
use sqlx::postgres::PgConnectOptions;
use std::time::Duration;

/// How long a request waits for a connection, and then for its statement, before it is told that the database is
/// unavailable.
const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);
const STATEMENT_TIMEOUT: Duration = Duration::from_millis(2300);
/// Whoever asks whether the database is there wants to know it now.
const HEALTH_TIMEOUT: Duration = Duration::from_millis(800);

/// Settings of the server's side of every connection, in milliseconds where there is no unit. They end what nobody on this
/// side waits for any more, so that it keeps neither locks nor a place.
const SERVER_SETTINGS: [(&str, &str); 5] = [
    // before this side gives up, so that its connection stays usable
    ("statement_timeout", "2000"),
    ("lock_timeout", "1500"),
    ("idle_in_transaction_session_timeout", "5000"),
    // a statement whose client has closed the connection is ended
    ("client_connection_check_interval", "1000"),
    // Planned for the tables as they are now, also the foreign keys' own look-ups. On an empty table every index
    // that begins with merchant_id costs the same, and a plan that is kept from then reads all of a merchant's
    // rows for each one, until the first ANALYZE: on launch day, of all days.
    ("plan_cache_mode", "force_custom_plan"),
];
/// A client that vanished without a word is noticed by the server within some 10 s.
const SERVER_KEEPALIVE: [(&str, &str); 4] = [
    ("tcp_keepalives_idle", "5"),
    ("tcp_keepalives_interval", "2"),
    ("tcp_keepalives_count", "3"),
    ("tcp_user_timeout", "10000"),
];

/// The database.
#[derive(Debug, Clone)]
pub struct Store {
    pool: Connections,
    /// Apart from the others, so that a busy service is not taken for one without a database.
    health: Connections,
}

impl Store {
    /// A store on at most so many connections, and one more for [`Store::check_schema`] and [`Store::condition`]. It
    /// connects when first used, so a database that is not there yet does not stop the program. It is to be used within a
    /// tokio runtime.
    #[must_use]
    pub fn open(options: PgConnectOptions, connections: u32, pooler: Pooler) -> Self {
        let options = options.application_name("payments");
        let mut settings = SERVER_SETTINGS.to_vec();
        if pooler == Pooler::None {
            settings.extend(SERVER_KEEPALIVE);
        }
        let open = |options, limits| Connections::new(options, pooler, &settings, limits);
        let limits = Limits { connections, acquire: ACQUIRE_TIMEOUT, statement: STATEMENT_TIMEOUT };
        let health = Limits { connections: 1, acquire: HEALTH_TIMEOUT, statement: HEALTH_TIMEOUT };
        Self { pool: open(options.clone(), limits), health: open(options, health) }
    }

    /// Why the database would refuse to write, although it answers. `None`: it would not, as far as anybody knows. That it
    /// only reads, it says when it is asked; that its disk is full, only who was refused within the last 10 s can tell.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn condition(&self) -> Result<Option<Condition>, StoreError> {
        let read_only: bool = sqlx::query_scalar("SELECT current_setting('transaction_read_only')::boolean")
            .fetch_one(&self.health)
            .await?;
        let refused = self.pool.condition().filter(|condition| *condition != Condition::ReadOnly);
        Ok(if read_only { Some(Condition::ReadOnly) } else { refused })
    }

    /// The most connections there can be for requests and the worker.
    #[must_use]
    pub fn most_connections(&self) -> u32 {
        self.pool.most()
    }

    /// All of these that are open, and how many of them are at rest.
    #[must_use]
    pub fn connections(&self) -> (u32, usize) {
        self.pool.count()
    }

    /// Waits until every connection is returned, and closes them.
    pub async fn close(&self) {
        self.pool.close().await;
        self.health.close().await;
    }
}
