//! The payment service.
//!
//! A request goes from [`http`] (which translates) to [`app`] (which tells the story) to the store and the provider;
//! [`worker`] finishes what a request left open, with the same code. [`server`] starts and stops all of it.

pub mod admission;
pub mod answer;
pub mod app;
pub mod cli;
pub mod config;
pub mod http;
pub mod metrics;
pub mod middleware;
pub mod problem;
pub mod schema;
pub mod server;
pub mod state;
pub mod telemetry;
pub mod worker;
