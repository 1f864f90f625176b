//! Merchants and their API keys. Only a hash of a key's secret is stored.

use crate::span::Traced;
use crate::{Store, StoreError};
use domain::id::{KeyId, MerchantId};
use domain::text::MerchantName;
use sqlx::Connection;
use time::OffsetDateTime;

/// What a key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// GET only.
    Read,
    /// Everything.
    Write,
}

impl Scope {
    /// The name in the database and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
        }
    }

    /// Reads a name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Read, Self::Write].into_iter().find(|scope| scope.name() == name)
    }
}

/// A key that is valid at the moment it was looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValidKey {
    /// Its public name.
    pub key_id: KeyId,
    /// What it may do.
    pub scope: Scope,
    /// When it stops being valid.
    pub expires_at: Option<OffsetDateTime>,
}

/// A key as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedKey {
    /// Its public name.
    pub key_id: KeyId,
    /// What it may do.
    pub scope: Scope,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it stops being valid by itself.
    pub expires_at: Option<OffsetDateTime>,
    /// When it was revoked.
    pub revoked_at: Option<OffsetDateTime>,
}

/// A key to be stored.
#[derive(Debug, Clone, Copy)]
pub struct NewKey<'a> {
    /// Whose it is.
    pub merchant_id: MerchantId,
    /// Its public name.
    pub key_id: KeyId,
    /// SHA-256 of the secret.
    pub secret_hash: &'a [u8; 32],
    /// What it may do.
    pub scope: Scope,
    /// When it stops being valid.
    pub expires_at: Option<OffsetDateTime>,
}

impl Store {
    /// Stores a merchant together with its first key.
    ///
    /// # Errors
    /// The database.
    pub async fn create_merchant(&self, name: &MerchantName, key: &NewKey<'_>) -> Result<(), StoreError> {
        let mut lent = self.pool.acquire().await?;
        let work = async {
            let mut transaction = lent.begin().await?;
            sqlx::query!(
                "INSERT INTO merchants (merchant_id, name) VALUES ($1, $2)",
                key.merchant_id.0,
                name.as_str()
            )
            .execute(&mut *transaction)
            .await?;
            insert_key(&mut transaction, key).await?;
            transaction.commit().await?;
            Ok(())
        };
        self.pool.within(work).await
    }

    /// Stores a further key. `false`: there is no such merchant.
    ///
    /// # Errors
    /// The database.
    pub async fn create_key(&self, key: &NewKey<'_>) -> Result<bool, StoreError> {
        let mut lent = self.pool.acquire().await?;
        let work = async {
            let mut transaction = lent.begin().await?;
            let merchant =
                sqlx::query!("SELECT name FROM merchants WHERE merchant_id = $1", key.merchant_id.0)
                    .fetch_optional(&mut *transaction)
                    .await?;
            if merchant.is_none() {
                return Ok(false);
            }
            insert_key(&mut transaction, key).await?;
            transaction.commit().await?;
            Ok(true)
        };
        self.pool.within(work).await
    }

    /// The key with this secret, unless it is expired or revoked.
    ///
    /// # Errors
    /// The database.
    pub async fn find_key(
        &self,
        merchant_id: MerchantId,
        secret_hash: &[u8; 32],
    ) -> Result<Option<ValidKey>, StoreError> {
        let row = sqlx::query!(
            "SELECT key_id, scope, expires_at FROM api_keys
             WHERE merchant_id = $1 AND secret_hash = $2
               AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > now())",
            merchant_id.0,
            &secret_hash[..],
        )
        .fetch_optional(&self.pool)
        .traced("find key")
        .await?;
        row.map(|row| {
            Ok(ValidKey { key_id: KeyId(row.key_id), scope: scope(&row.scope)?, expires_at: row.expires_at })
        })
        .transpose()
    }

    /// A merchant's keys, oldest first.
    ///
    /// # Errors
    /// The database.
    pub async fn list_keys(&self, merchant_id: MerchantId) -> Result<Vec<ListedKey>, StoreError> {
        let rows = sqlx::query!(
            "SELECT key_id, scope, created_at, expires_at, revoked_at FROM api_keys
             WHERE merchant_id = $1 ORDER BY key_id",
            merchant_id.0,
        )
        .fetch_all(&self.pool)
        .await?;
        rows.into_iter()
            .map(|row| {
                Ok(ListedKey {
                    key_id: KeyId(row.key_id),
                    scope: scope(&row.scope)?,
                    created_at: row.created_at,
                    expires_at: row.expires_at,
                    revoked_at: row.revoked_at,
                })
            })
            .collect()
    }

    /// Revokes a key for good. `false`: there is no such key, or it was revoked before.
    ///
    /// # Errors
    /// The database.
    pub async fn revoke_key(&self, merchant_id: MerchantId, key_id: KeyId) -> Result<bool, StoreError> {
        let done = sqlx::query!(
            "UPDATE api_keys SET revoked_at = now() WHERE merchant_id = $1 AND key_id = $2 AND revoked_at IS NULL",
            merchant_id.0,
            key_id.0,
        )
        .execute(&self.pool)
        .await?;
        Ok(done.rows_affected() == 1)
    }
}

async fn insert_key(connection: &mut sqlx::PgConnection, key: &NewKey<'_>) -> Result<(), StoreError> {
    sqlx::query!(
        "INSERT INTO api_keys (merchant_id, key_id, secret_hash, scope, expires_at) VALUES ($1, $2, $3, $4, $5)",
        key.merchant_id.0,
        key.key_id.0,
        &key.secret_hash[..],
        key.scope.name(),
        key.expires_at,
    )
    .execute(connection)
    .await?;
    Ok(())
}

fn scope(name: &str) -> Result<Scope, StoreError> {
    Scope::parse(name).ok_or(StoreError::Unreadable("api_keys.scope"))
}
