//! Everything on one machine: PostgreSQL, the simulator, the service.
//!
//! People start it with the `devstack` program, tests call the same code:
//!
//! - [`database`] gives every test a database of its own, on one server per test run.
//! - [`stack`] runs the service's programs as processes, so that a test can kill, pause and restart them.
//! - [`fault_proxy`] breaks the network between two programs.
//! - [`postgres`] finds or installs PostgreSQL and runs a cluster; [`process`] runs any other program; [`port`] finds
//!   ports that nobody else will take.
//!
//! It imports no other package of the workspace: the programs are found on disk and the migrations are a folder,
//! so what is driven here is what will be deployed.

mod lock;
mod login;
mod watchdog;

pub mod database;
pub mod fault_proxy;
pub mod port;
pub mod postgres;
pub mod process;
pub mod stack;

pub use database::TestDatabase;
pub use fault_proxy::{Fault, FaultProxy};
pub use stack::{Stack, StackOptions};
pub use watchdog::Guard;

/// Where progress is told, one line at a time: standard error for people, nowhere for tests.
pub type Report = fn(&str);

/// The [`Report`] of those who do not want to know.
pub fn silent(_line: &str) {}
