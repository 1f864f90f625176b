//! The role the service logs in as.
//!
//! The migrations create the group `payments_service` and grant it what the service may do. A group cannot log in, and
//! who can is a matter of the installation: in production an operator decides, here it is this module.

use std::str::FromStr;

use anyhow::{Context, Result, anyhow};
use sha2::{Digest, Sha256};
use sqlx::postgres::PgConnectOptions;
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection};
use url::Url;

const GROUP: &str = "payments_service";
const LOGIN: &str = "payments_login";

/// Serialises what happens to roles and templates, which belong to the whole cluster. Advisory locks belong to one
/// database, so everyone takes it in [`COMMON_DATABASE`].
const LOCK: i64 = 0x006c_6f67_696e;
const COMMON_DATABASE: &str = "postgres";

/// The same server and user, another database.
pub(crate) fn with_database(url: &str, database: &str) -> Result<String> {
    let mut url = Url::parse(url).context("the database URL cannot be read")?;
    url.set_path(database);
    Ok(url.into())
}

/// The URL with which the service logs into the database of `owner_url`.
///
/// Its password follows from the owner's: every process that may create the role knows it without being told, and who
/// does not know the owner's cannot guess it.
pub(crate) fn service_url(owner_url: &str) -> Result<String> {
    let mut url = Url::parse(owner_url).context("the database URL cannot be read")?;
    let password = password(&url);
    url.set_username(LOGIN)
        .and_then(|()| url.set_password(Some(&password)))
        .map_err(|()| anyhow!("the database URL must name a host"))?;
    Ok(url.into())
}

fn password(owner: &Url) -> String {
    let hash = Sha256::new()
        .chain_update(LOGIN)
        .chain_update([0])
        .chain_update(owner.password().unwrap_or_default())
        .finalize();
    hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Creates the login if it is missing, makes it a member of the group if there is one, and leaves it no other right.
///
/// # Errors
///
/// When the owner may not create roles.
pub(crate) async fn ensure(owner_url: &str) -> Result<()> {
    let mut connection = connect_common(owner_url).await?;
    lock(&mut connection).await?;
    let result = ensure_locked(&mut connection, owner_url).await;
    // Closing releases the lock as well, whatever happened.
    connection.close().await?;
    result.context("cannot create the service's role: the owner needs CREATEROLE")
}

/// [`ensure`] on a connection that holds the lock.
pub(crate) async fn ensure_locked(connection: &mut PgConnection, owner_url: &str) -> Result<()> {
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
        .bind(LOGIN)
        .fetch_one(&mut *connection)
        .await?;
    if !exists || !can_log_in(owner_url).await? {
        let verb = if exists { "ALTER" } else { "CREATE" };
        let password = password(&Url::parse(owner_url)?);
        execute(connection, format!("{verb} ROLE {LOGIN} LOGIN PASSWORD '{password}'")).await?;
    }
    let lacks_membership: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1) AND NOT EXISTS (
             SELECT FROM pg_auth_members AS m
             JOIN pg_roles AS g ON g.oid = m.roleid
             JOIN pg_roles AS l ON l.oid = m.member
             WHERE g.rolname = $1 AND l.rolname = $2)",
    )
    .bind(GROUP)
    .bind(LOGIN)
    .fetch_one(&mut *connection)
    .await?;
    if lacks_membership {
        execute(connection, format!("GRANT {GROUP} TO {LOGIN}")).await?;
    }
    Ok(())
}

/// Connects to the database that every cluster has.
pub(crate) async fn connect_common(owner_url: &str) -> Result<PgConnection> {
    connect(&with_database(owner_url, COMMON_DATABASE)?).await
}

pub(crate) async fn connect(url: &str) -> Result<PgConnection> {
    let options = PgConnectOptions::from_str(url).context("the database URL cannot be read")?;
    PgConnection::connect_with(&options.disable_statement_logging())
        .await
        .context("cannot connect to PostgreSQL")
}

/// Waits for the lock; the end of the connection releases it.
pub(crate) async fn lock(connection: &mut PgConnection) -> Result<()> {
    sqlx::query("SELECT pg_advisory_lock($1)").bind(LOCK).execute(connection).await?;
    Ok(())
}

/// Executes a statement whose names cannot be parameters. All of them are made by this crate.
pub(crate) async fn execute(connection: &mut PgConnection, statement: String) -> Result<()> {
    sqlx::raw_sql(AssertSqlSafe(statement)).execute(connection).await?;
    Ok(())
}

/// False when a server has the role from another time, with another password.
async fn can_log_in(owner_url: &str) -> Result<bool> {
    let url = with_database(&service_url(owner_url)?, COMMON_DATABASE)?;
    match connect(&url).await {
        Ok(connection) => {
            connection.close().await?;
            Ok(true)
        }
        Err(error) => {
            let code =
                error.downcast_ref::<sqlx::Error>().and_then(|error| error.as_database_error()?.code());
            // invalid_password, invalid_authorization_specification (the role may not log in)
            if matches!(code.as_deref(), Some("28P01" | "28000")) { Ok(false) } else { Err(error) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_logs_in_with_a_password_of_its_own() {
        let url = service_url("postgres://owner:secret@127.0.0.1:5432/shop?sslmode=disable").unwrap();

        assert!(url.starts_with("postgres://payments_login:"), "{url}");
        assert!(url.ends_with("@127.0.0.1:5432/shop?sslmode=disable"), "{url}");
        assert!(!url.contains("secret"));
        assert_ne!(url, service_url("postgres://owner:other@127.0.0.1:5432/shop?sslmode=disable").unwrap());
    }

    #[test]
    fn a_url_without_a_host_is_refused() {
        assert!(service_url("postgres:///shop?host=/run/postgresql").is_err());
    }

    #[test]
    fn only_the_database_changes() {
        let url =
            with_database("postgres://owner:p%40ss@db.example:5433/one?sslmode=verify-full", "two").unwrap();

        assert_eq!(url, "postgres://owner:p%40ss@db.example:5433/two?sslmode=verify-full");
    }
}
