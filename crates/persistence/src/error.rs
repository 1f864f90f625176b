//! What can go wrong in the database, in the words of the service: the one place where constraint names and SQLSTATEs
//! mean something.

/// Why a statement did not do what it was asked to. Log it by `Display`: the `Debug` form of a database's error has the
/// values of the row it is about.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A living payment of the merchant has the reference.
    #[error("the reference is in use")]
    ReferenceInUse,
    /// The payment was not in the state that the change starts from.
    #[error("the payment is not in the state the change starts from")]
    StateMoved,
    /// The database cannot be used right now. What was asked for may have happened if the answer was lost.
    #[error("the database is unavailable: {0}")]
    Unavailable(#[source] sqlx::Error),
    /// A fault of this program.
    #[error("the database refused the statement: {0}")]
    Fault(#[source] sqlx::Error),
    /// A row that this version cannot read.
    #[error("a row does not hold what this version expects: {0}")]
    Unreadable(&'static str),
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> Self {
        match error.as_database_error() {
            Some(database) => {
                // Some proxies and sharding extensions name a constraint only with a suffix of their own.
                let constraint = database.constraint().unwrap_or_default();
                if constraint.starts_with("payments_live_reference_key") {
                    return Self::ReferenceInUse;
                }
                match database.code().as_deref() {
                    // the settlement's event had no sequence, because its payment did not move
                    Some("23502") if database.message().contains("\"sequence\"") => Self::StateMoved,
                    Some(code) if is_passing(code) => Self::Unavailable(error),
                    _ => Self::Fault(error),
                }
            }
            None => match error {
                sqlx::Error::Io(_)
                | sqlx::Error::Tls(_)
                | sqlx::Error::Protocol(_)
                | sqlx::Error::PoolTimedOut
                | sqlx::Error::PoolClosed
                | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
                other => Self::Fault(other),
            },
        }
    }
}

/// Why a database that answers takes no writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Condition {
    /// It is a standby, or was told to write nothing.
    ReadOnly,
    /// Its disk is full.
    DiskFull,
}

impl Condition {
    /// What logs and `/readyz` call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::DiskFull => "disk full",
        }
    }

    pub(crate) fn of(error: &sqlx::Error) -> Option<Self> {
        match error.as_database_error()?.code().as_deref()? {
            "25006" => Some(Self::ReadOnly),
            "53100" => Some(Self::DiskFull),
            _ => None,
        }
    }
}

/// SQLSTATEs that are about the server's condition, not about the statement (PostgreSQL documentation, appendix A).
fn is_passing(code: &str) -> bool {
    let class = code.get(..2).unwrap_or_default();
    // connection, resources (disk, memory, connections), operator intervention, system error
    matches!(class, "08" | "53" | "57" | "58")
        // read-only, serialisation, deadlock, lock timeout
        || matches!(code, "25006" | "40001" | "40P01" | "55P03")
        // the login does not work or may not use the tables: an operator's change, not this program's fault
        || matches!(code, "28000" | "28P01" | "3D000" | "42501" | "42P01")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_goes_down_is_unavailable_and_a_wrong_statement_is_a_fault() {
        for code in ["57P01", "53300", "08006", "57014", "25006", "28P01"] {
            assert!(is_passing(code), "{code}");
        }
        for code in ["23505", "42601", "22P02"] {
            assert!(!is_passing(code), "{code}");
        }
        assert!(matches!(sqlx::Error::PoolTimedOut.into(), StoreError::Unavailable(_)));
    }
}
