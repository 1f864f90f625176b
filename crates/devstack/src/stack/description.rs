//! What other programs need to know about a stack.

use serde::Serialize;

use crate::process::Environment;

/// Where everything is, for other programs: the content of the ready file.
#[derive(Debug, Clone, Serialize)]
pub struct Description {
    pub(super) api: String,
    pub(super) ops: String,
    pub(super) simulator: String,
    pub(super) database_url: String,
    pub(super) merchant_id: String,
    pub(super) api_key: String,
    pub(super) services: Vec<ServiceDescription>,
    pub(super) simulator_pid: Option<u32>,
    pub(super) postgres_pid: Option<u32>,
    pub(super) service_env: Environment,
}

#[derive(Debug, Clone, Serialize)]
pub(super) struct ServiceDescription {
    pub(super) api: String,
    pub(super) ops: String,
    pub(super) pid: u32,
}
