//! The merchant that people and tests play with: made once, kept in the data directory.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use reqwest::StatusCode;
use serde::{Deserialize, Serialize};

use super::http;

/// Longer than the service may take for any request.
const ANSWER_BOUND: Duration = Duration::from_secs(15);

/// A merchant with a key for the service. It exists nowhere but on this machine, so its key may be shown.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Merchant {
    /// The merchant's id.
    pub merchant_id: String,
    /// The id of the key.
    pub key_id: String,
    /// The key itself, for the `Authorization` header.
    pub api_key: String,
}

/// The merchant that an earlier stack kept.
pub(super) fn read(file: &Path) -> Option<Merchant> {
    serde_json::from_str(&fs::read_to_string(file).ok()?).ok()
}

/// Reads what `merchant create --json` printed and keeps it.
pub(super) fn keep(line: &str, file: &Path) -> Result<Merchant> {
    let merchant: Merchant =
        serde_json::from_str(line).context("`merchant create --json` printed something else")?;
    let mut kept = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(file)?;
    kept.write_all(&serde_json::to_vec(&merchant)?)?;
    Ok(merchant)
}

/// Whether its key still opens the service: the data directory may have been used with another database.
///
/// Without a service there is nobody to ask.
pub(super) async fn is_valid(merchant: &Merchant, api_url: Option<&str>) -> Result<bool> {
    let Some(api_url) = api_url else { return Ok(true) };
    let http = http::client(ANSWER_BOUND)?;
    let answer =
        http.get(format!("{api_url}/v1/payments?limit=1")).bearer_auth(&merchant.api_key).send().await?;
    Ok(!matches!(answer.status(), StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN))
}
