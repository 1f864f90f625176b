//! PostgreSQL from whatever this machine offers, and a cluster run from it.
//!
//! [`find`] decides where PostgreSQL comes from, one file per source; [`Cluster`] runs a server from what was found.

mod account;
mod binaries;
mod cluster;
mod docker;
mod packages;

use std::ffi::OsString;
use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, anyhow, bail};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

pub use cluster::{Cluster, Durability};
pub(crate) use docker::settled;

use crate::Report;
use crate::process::{Account, Environment, Process};

/// The oldest major version that works.
pub const OLDEST_MAJOR: u32 = 15;

const NOTHING_FOUND: &str = "no PostgreSQL: install PostgreSQL 15 or newer (Debian and Ubuntu: `apt-get install \
     postgresql`, Fedora: `dnf install postgresql-server`, macOS: `brew install postgresql`), start Docker, or name a \
     server with DATABASE_URL";

/// Where PostgreSQL can come from, in the order in which they are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// A running server, named by its URL.
    Url,
    /// Server programs that are installed here.
    Binaries,
    /// An image that holds server programs.
    Docker,
    /// The system's packages.
    Packages,
}

impl fmt::Display for Source {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Source::Url => "url",
            Source::Binaries => "binaries",
            Source::Docker => "docker",
            Source::Packages => "packages",
        })
    }
}

impl FromStr for Source {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Source> {
        match text {
            "url" => Ok(Source::Url),
            "binaries" => Ok(Source::Binaries),
            "docker" => Ok(Source::Docker),
            "packages" => Ok(Source::Packages),
            other => bail!("POSTGRES_FROM is {other:?}; it must be url, binaries, docker or packages"),
        }
    }
}

/// What the caller asks for.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// A server to use instead of one of our own.
    pub url: Option<String>,
    /// The only source to try.
    pub source: Option<Source>,
    /// The major version that made the data which is to be served, if there is any.
    pub major: Option<u32>,
}

impl Wanted {
    /// What `DATABASE_URL` and `POSTGRES_FROM` say.
    ///
    /// # Errors
    ///
    /// When `POSTGRES_FROM` names no source.
    pub fn from_environment() -> Result<Wanted> {
        let given = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        Ok(Wanted {
            url: given("DATABASE_URL"),
            source: given("POSTGRES_FROM").map(|text| text.parse()).transpose()?,
            major: None,
        })
    }
}

/// What was found.
#[derive(Debug, Clone)]
pub enum Postgres {
    /// A server that answers at this URL.
    Url(String),
    /// Programs from which a [`Cluster`] can be run.
    Installed(Installation),
}

/// PostgreSQL's server programs.
#[derive(Debug, Clone)]
pub struct Installation {
    programs: Programs,
    major: u32,
}

#[derive(Debug, Clone)]
enum Programs {
    Here(binaries::Directory),
    Image(docker::Image),
}

impl Installation {
    /// Refuses a version that is too old.
    fn new(programs: Programs, major: u32) -> Result<Installation> {
        let installation = Installation { programs, major };
        if major < OLDEST_MAJOR {
            let origin = installation.origin();
            bail!("{origin} is PostgreSQL {major}, and {OLDEST_MAJOR} is the oldest that works");
        }
        Ok(installation)
    }

    /// The directory with the programs, if they are on this machine and not in an image.
    pub fn programs(&self) -> Option<&Path> {
        match &self.programs {
            Programs::Here(directory) => Some(directory.path()),
            Programs::Image(_) => None,
        }
    }

    /// Where the programs are, for people.
    pub fn origin(&self) -> String {
        match &self.programs {
            Programs::Here(directory) => directory.path().display().to_string(),
            Programs::Image(image) => format!("the image {image}"),
        }
    }

    /// The major version.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// Runs a program to its end, for the cluster in `directory` and as `account`.
    async fn run(
        &self,
        program: &str,
        arguments: &[OsString],
        directory: &Path,
        account: Option<Account>,
    ) -> Result<()> {
        match &self.programs {
            Programs::Here(programs) => programs.run(program, arguments, account).await,
            Programs::Image(image) => image.run(program, arguments, directory, account).await.map(drop),
        }
    }

    /// Starts the server of the cluster in `directory`, as `account`. It writes to the end of `log`.
    async fn serve(
        &self,
        arguments: &[OsString],
        directory: &Path,
        account: Option<Account>,
        log: &Path,
    ) -> Result<Process> {
        match &self.programs {
            Programs::Here(programs) => programs.serve(arguments, account, log),
            Programs::Image(image) => image.serve(arguments, directory, account, log).await,
        }
    }
}

/// What all programs are told: the settings that follow from the locale and the zone must not depend on who creates the
/// cluster.
fn environment() -> Environment {
    Environment::from([("LC_ALL".to_owned(), "C.UTF-8".to_owned()), ("TZ".to_owned(), "UTC".to_owned())])
}

/// Finds PostgreSQL in the first place that has it.
///
/// A URL that was given is an order, not a suggestion: when it does not answer, nothing else is tried, because work
/// that was meant for one database must not silently land in another.
///
/// # Errors
///
/// When there is none and none can be had, with what to do about it.
pub async fn find(wanted: &Wanted, report: Report) -> Result<Postgres> {
    match (wanted.source, &wanted.url) {
        (Some(Source::Url) | None, Some(url)) => {
            check_server(url).await?;
            Ok(Postgres::Url(url.clone()))
        }
        (Some(Source::Url), None) => bail!("POSTGRES_FROM=url needs DATABASE_URL"),
        (Some(Source::Binaries), _) => {
            binaries::find(wanted.major)?.map(Postgres::Installed).ok_or_else(|| anyhow!(NOTHING_FOUND))
        }
        (Some(Source::Docker), _) => docker::find(wanted.major, report).await.map(Postgres::Installed),
        (Some(Source::Packages), _) => packages::install(report).await.map(Postgres::Installed),
        (None, None) => find_programs(wanted.major, report).await.map(Postgres::Installed),
    }
}

async fn find_programs(major: Option<u32>, report: Report) -> Result<Installation> {
    if let Some(installation) = binaries::find(major)? {
        return Ok(installation);
    }
    // A machine without Docker is nothing to talk about, one whose Docker does not help is.
    if docker::answers().await.is_ok() {
        match docker::find(major, report).await {
            Ok(installation) => return Ok(installation),
            Err(error) => report(&format!("not from Docker: {error:#}; trying the system's packages")),
        }
    }
    packages::install(report).await.with_context(|| NOTHING_FOUND)
}

/// Refuses a server that does not answer or is too old.
async fn check_server(url: &str) -> Result<()> {
    let options = PgConnectOptions::from_str(url).context("DATABASE_URL cannot be read")?;
    let mut connection = PgConnection::connect_with(&options.disable_statement_logging()).await.context(
        "the server of DATABASE_URL (or --database-url) does not answer; start it, or leave the setting out",
    )?;
    let number: String = sqlx::query_scalar("SHOW server_version_num").fetch_one(&mut connection).await?;
    connection.close().await?;
    // 150004 is 15.4.
    let major = number.parse::<u32>().context("server_version_num")? / 10_000;
    if major < OLDEST_MAJOR {
        bail!("DATABASE_URL names a PostgreSQL {major}, and {OLDEST_MAJOR} is the oldest that works");
    }
    Ok(())
}

/// Reads "postgres (PostgreSQL) 15.4 (Debian 15.4-1)" and "postgres (PostgreSQL) 18beta1".
fn major_version(text: &str) -> Option<u32> {
    let (_, version) = text.split_once("(PostgreSQL) ")?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::silent;

    #[test]
    fn reads_versions() {
        assert_eq!(major_version("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n"), Some(15));
        assert_eq!(major_version("postgres (PostgreSQL) 18beta1"), Some(18));
        assert_eq!(major_version("postgres: not found"), None);
    }

    #[test]
    fn sources_are_named_as_in_the_environment() {
        for source in [Source::Url, Source::Binaries, Source::Docker, Source::Packages] {
            assert_eq!(source.to_string().parse::<Source>().unwrap(), source);
        }
        assert!("cloud".parse::<Source>().is_err());
    }

    #[tokio::test]
    async fn a_url_that_does_not_answer_is_not_replaced() {
        let wanted =
            Wanted { url: Some("postgres://nobody@127.0.0.1:1/none".to_owned()), ..Wanted::default() };

        let error = find(&wanted, silent).await.unwrap_err();

        assert!(error.to_string().contains("does not answer"), "{error:#}");
    }

    #[tokio::test]
    async fn forcing_a_url_needs_one() {
        let wanted = Wanted { source: Some(Source::Url), ..Wanted::default() };

        assert!(find(&wanted, silent).await.unwrap_err().to_string().contains("DATABASE_URL"));
    }
}
