//! Speaking with programs on this machine.

use std::time::Duration;

use anyhow::Result;
use reqwest::Client;

/// A client for 127.0.0.1: no proxy of the environment has any business there, and no certificates are needed, which a
/// bare machine does not have.
pub(super) fn client(timeout: Duration) -> Result<Client> {
    Ok(Client::builder().timeout(timeout).no_proxy().tls_certs_only([]).build()?)
}
