//! API keys: `sk_<merchant>_<secret>_<checksum>`, all in hex.
//!
//! The merchant's id is readable, so that a look-up names the merchant; the secret has 256 random bits, of which only a
//! hash is stored; the checksum tells a mistyped or truncated key without asking the database.

use domain::id::{KeyId, MerchantId};
use domain::text::MerchantName;
use persistence::merchants::{NewKey, Scope};
use persistence::{Store, StoreError};
use rand::TryRngCore;
use rand::rngs::OsRng;
use sha2::{Digest, Sha256};
use std::fmt::Write;
use time::OffsetDateTime;
use uuid::Uuid;

/// A key, as the merchant holds it. It is shown once.
#[derive(Clone)]
pub struct ApiKey {
    merchant_id: MerchantId,
    secret: String,
}

/// The system has no randomness to give.
#[derive(Debug, thiserror::Error)]
#[error("no randomness from the operating system: {0}")]
pub struct NoRandomness(#[from] rand::rand_core::OsError);

/// Why a key could not be made.
#[derive(Debug, thiserror::Error)]
pub enum CreateKeyError {
    /// See there.
    #[error(transparent)]
    NoRandomness(#[from] NoRandomness),
    /// The database.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// There is no such merchant.
    #[error("there is no such merchant")]
    NoSuchMerchant,
}

impl ApiKey {
    /// A new key.
    ///
    /// # Errors
    /// The operating system has no randomness.
    pub fn generate(merchant_id: MerchantId) -> Result<Self, NoRandomness> {
        let mut secret = [0; 32];
        OsRng.try_fill_bytes(&mut secret)?;
        Ok(Self { merchant_id, secret: hex(&secret) })
    }

    /// Reads a key; `None` for whatever no key can be.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("sk_")?.split('_');
        let (merchant, secret, checksum) = (parts.next()?, parts.next()?, parts.next()?);
        let lower_hex = |text: &str| text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let well_formed = parts.next().is_none() && merchant.len() == 32 && secret.len() == 64;
        if !well_formed || !lower_hex(merchant) || !lower_hex(secret) {
            return None;
        }
        let key =
            Self { merchant_id: MerchantId(Uuid::try_parse(merchant).ok()?), secret: secret.to_owned() };
        (key.checksum() == checksum).then_some(key)
    }

    /// The key's text.
    #[must_use]
    pub fn reveal(&self) -> String {
        format!("sk_{}_{}_{}", self.merchant_id.0.simple(), self.secret, self.checksum())
    }

    /// Whose key it is.
    #[must_use]
    pub const fn merchant_id(&self) -> MerchantId {
        self.merchant_id
    }

    /// What is stored of it.
    #[must_use]
    pub fn secret_hash(&self) -> [u8; 32] {
        Sha256::digest(&self.secret).into()
    }

    fn checksum(&self) -> String {
        let digest = Sha256::new().chain_update(self.merchant_id.0).chain_update(&self.secret).finalize();
        hex(digest.get(..4).unwrap_or_default())
    }
}

/// Without the secret.
impl std::fmt::Debug for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ApiKey(of {})", self.merchant_id)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len().saturating_mul(2)), |mut text, byte| {
        // writing to a string cannot fail
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Makes a merchant with a first key, which may do everything.
///
/// # Errors
/// No randomness; the database.
pub async fn create(store: &Store, name: &MerchantName) -> Result<(KeyId, ApiKey), CreateKeyError> {
    let now = OffsetDateTime::now_utc();
    let key = ApiKey::generate(MerchantId::at(now))?;
    let key_id = KeyId::at(now);
    let hash = key.secret_hash();
    let new = NewKey {
        merchant_id: key.merchant_id,
        key_id,
        secret_hash: &hash,
        scope: Scope::Write,
        expires_at: None,
    };
    store.create_merchant(name, &new).await?;
    Ok((key_id, key))
}

/// Makes a further key.
///
/// # Errors
/// No randomness; no such merchant; the database.
pub async fn create_key(
    store: &Store,
    merchant_id: MerchantId,
    scope: Scope,
    expires_at: Option<OffsetDateTime>,
) -> Result<(KeyId, ApiKey), CreateKeyError> {
    let key = ApiKey::generate(merchant_id)?;
    let key_id = KeyId::at(OffsetDateTime::now_utc());
    let hash = key.secret_hash();
    let new = NewKey { merchant_id, key_id, secret_hash: &hash, scope, expires_at };
    if store.create_key(&new).await? { Ok((key_id, key)) } else { Err(CreateKeyError::NoSuchMerchant) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> ApiKey {
        ApiKey::generate(MerchantId::at(OffsetDateTime::now_utc())).unwrap()
    }

    #[test]
    fn a_key_is_read_back_and_no_two_are_alike() {
        let key = key();
        let read = ApiKey::parse(&key.reveal()).unwrap();
        assert_eq!(read.merchant_id(), key.merchant_id());
        assert_eq!(read.secret_hash(), key.secret_hash());
        assert_ne!(ApiKey::generate(key.merchant_id()).unwrap().secret_hash(), key.secret_hash());
    }

    #[test]
    fn debugging_a_key_does_not_reveal_it() {
        let key = key();
        assert!(!format!("{key:?}").contains(&key.secret));
    }

    proptest! {
        #[test]
        fn one_wrong_character_is_noticed(at in 0..109usize, to in "[0-9a-f]") {
            let good = key().reveal();
            let mut bad = good.clone();
            bad.replace_range(at..=at, &to);
            prop_assume!(bad != good);
            prop_assert!(ApiKey::parse(&bad).is_none());
        }

        #[test]
        fn any_text_is_answered(text: String) {
            prop_assert!(ApiKey::parse(&text).is_none());
        }
    }
}
