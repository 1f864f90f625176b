//! Settings: from the environment, or from a TOML file; the environment wins.
//!
//! Each concern has a struct of its own, so that a command asks only for what it needs. A value is parsed once, here, and
//! values are checked against each other: a lease shorter than the work it guards would let the work be done twice.

use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgSslMode};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::str::FromStr;
use std::time::Duration;
use url::{Host, Url};

use domain::operation::Windows;
use persistence::Pooler;

/// A setting: its name, its default, and what `--help` says about it.
pub struct Setting {
    /// The environment variable. In a file it is written in lower case, without the prefix.
    pub name: &'static str,
    /// The value without one; `None`: it is required, or the text says what happens.
    pub default: Option<&'static str>,
    /// What it is for.
    pub help: &'static str,
    /// A value that would do.
    pub example: &'static str,
}

const fn setting(
    name: &'static str,
    default: Option<&'static str>,
    help: &'static str,
    example: &'static str,
) -> Setting {
    Setting { name, default, help, example }
}

const PREFIX: &str = "PAYWRIGHT_";
const OTLP: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// Every setting there is.
pub const SETTINGS: [Setting; 25] = [
    setting(
        "DATABASE_URL",
        None,
        "the database, as the service's role",
        "postgres://payments@db.example/payments",
    ),
    setting(
        "PAYWRIGHT_MIGRATION_DATABASE_URL",
        None,
        "the database, as its owner, for `migrate` (DATABASE_URL)",
        "postgres://owner@db.example/payments",
    ),
    setting(
        "PAYWRIGHT_ALLOW_PLAINTEXT",
        Some("false"),
        "allow a remote database without verified TLS",
        "true",
    ),
    setting("PAYWRIGHT_DATABASE_CONNECTIONS", Some("20"), "connections to the database, at most", "20"),
    setting(
        "PAYWRIGHT_DATABASE_POOLER",
        Some("none"),
        "what is between here and the database: none, or transaction, a pooler such as PgBouncer in that mode",
        "transaction",
    ),
    setting(
        "PAYWRIGHT_PROVIDER_URL",
        None,
        "the payment provider, without /v1; https unless loopback",
        "https://api.stripe.com",
    ),
    setting("PAYWRIGHT_PROVIDER_API_KEY", None, "the secret key at the provider", "sk_test_123"),
    setting(
        "PAYWRIGHT_PROVIDER_TIMEOUT",
        Some("5s"),
        "one attempt at the provider, from connect to last byte",
        "5s",
    ),
    setting("PAYWRIGHT_LISTEN", Some("127.0.0.1:8080"), "the public listener", "0.0.0.0:8080"),
    setting("PAYWRIGHT_OPS_LISTEN", Some("127.0.0.1:9464"), "the operations listener", "0.0.0.0:9464"),
    setting(
        "PAYWRIGHT_MAX_CONNECTIONS",
        Some("4096"),
        "connections to the public listener at once; fewer if the limit of open files is too low",
        "4096",
    ),
    setting(
        "PAYWRIGHT_SYNC_WAIT",
        Some("8s"),
        "how long a payment waits for the provider before it is answered 202",
        "8s",
    ),
    setting("PAYWRIGHT_REQUEST_TIMEOUT", Some("10s"), "every request is answered within this time", "10s"),
    setting(
        "PAYWRIGHT_LEASE",
        Some("15s"),
        "how long a process owns an operation; more than the provider timeout + 5s",
        "15s",
    ),
    setting(
        "PAYWRIGHT_CHARGE_WINDOW",
        Some("30m"),
        "no attempt to charge begins later than this after creation",
        "30m",
    ),
    setting(
        "PAYWRIGHT_PROVIDER_KEY_RETENTION",
        Some("24h"),
        "how long the provider honours an idempotency key; at least 1h more than the charge window",
        "24h",
    ),
    setting("PAYWRIGHT_ACTION_WINDOW", Some("1h"), "a payment nobody completed is canceled after this", "1h"),
    setting(
        "PAYWRIGHT_IDEMPOTENCY_TTL",
        Some("24h"),
        "a key is honoured so long after its operation settled",
        "24h",
    ),
    setting("PAYWRIGHT_MAX_IN_FLIGHT", Some("256"), "requests that do database work at once", "256"),
    setting(
        "PAYWRIGHT_RATE_LIMIT",
        Some("1000"),
        "requests per second, per merchant and process; 0 is off",
        "1000",
    ),
    setting("PAYWRIGHT_SHUTDOWN_GRACE", Some("0s"), "keeps serving so long while unready", "5s"),
    setting("PAYWRIGHT_SHUTDOWN_TIMEOUT", Some("10s"), "then finishes what runs, at most so long", "10s"),
    setting("PAYWRIGHT_LOG_FORMAT", None, "json or text (json, on a terminal text)", "json"),
    setting(
        OTLP,
        None,
        "where traces and metrics are sent, by OTLP over HTTP (nowhere); the other OTEL_ variables are the standard's",
        "http://127.0.0.1:4318",
    ),
    setting("RUST_LOG", Some("info,opentelemetry=warn"), "what is logged", "info,persistence=debug"),
];

/// A setting is missing or wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name} {problem}. For example: {name}={example}")]
pub struct ConfigError {
    name: String,
    problem: String,
    example: &'static str,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object a line.
    Json,
    /// For people.
    Text,
}

/// Where telemetry is sent; `None`: nowhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Otlp {
    /// The whole URL for traces.
    pub traces: Option<String>,
    /// The whole URL for metrics.
    pub metrics: Option<String>,
}

/// The database.
#[derive(Clone)]
pub struct Database {
    /// Where and as whom.
    pub options: PgConnectOptions,
    /// Connections, at most.
    pub connections: u32,
    /// What is between here and there.
    pub pooler: Pooler,
}

/// The payment provider.
#[derive(Debug, Clone)]
pub struct ProviderApi {
    /// Without `/v1`.
    pub url: String,
    /// The secret key.
    pub api_key: SecretString,
    /// One attempt, from connect to last byte.
    pub timeout: Duration,
}

/// The two listeners.
#[derive(Debug, Clone, Copy)]
pub struct Listeners {
    /// For merchants.
    pub public: SocketAddr,
    /// For operators.
    pub operations: SocketAddr,
    /// Connections to the public one at once.
    pub max_connections: usize,
}

/// How the service behaves.
#[derive(Debug, Clone)]
pub struct Service {
    /// How long a POST waits for the provider before it is answered 202.
    pub sync_wait: Duration,
    /// Every request is answered within this.
    pub request_timeout: Duration,
    /// The times that decide what may be done to an open charge.
    pub windows: Windows,
    /// A key is honoured so long after its operation settled.
    pub idempotency_ttl: Duration,
    /// Requests that do database work at once.
    pub max_in_flight: usize,
    /// Requests per second, per merchant and process; 0 is off.
    pub rate_limit: u32,
    /// Keeps serving so long while unready.
    pub shutdown_grace: Duration,
    /// Then finishes what runs, at most so long.
    pub shutdown_timeout: Duration,
}

/// Where values come from.
pub struct Source {
    file: BTreeMap<String, String>,
    environment: fn(&str) -> Option<String>,
}

impl Source {
    /// The environment, and a file if there is one.
    ///
    /// # Errors
    /// A file that cannot be read, or that has a setting nobody knows.
    pub fn open(file: Option<&Path>) -> Result<Self, ConfigError> {
        let file = file.map_or_else(|| Ok(BTreeMap::new()), read_file)?;
        Ok(Self { file, environment: |name| std::env::var(name).ok() })
    }

    /// A value: from the environment, from the file that `NAME_FILE` names, from the settings file, or the default.
    fn get(&self, setting: &'static Setting) -> Result<Option<String>, ConfigError> {
        if let Some(value) = (self.environment)(setting.name) {
            return Ok(Some(value));
        }
        if let Some(path) = (self.environment)(&format!("{}_FILE", setting.name)) {
            let secret = std::fs::read_to_string(&path).map_err(|error| ConfigError {
                name: format!("{}_FILE", setting.name),
                problem: format!("names {path}, which cannot be read: {error}"),
                example: "/run/secrets/name",
            })?;
            return Ok(Some(secret.trim_end_matches(['\r', '\n']).to_owned()));
        }
        Ok(self.file.get(&file_name(setting.name)).cloned().or_else(|| setting.default.map(str::to_owned)))
    }

    fn read<T, E: std::fmt::Display>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ConfigError> {
        let setting = named(name)?;
        let Some(value) = self.get(setting)? else { return Ok(None) };
        parse(&value).map(Some).map_err(|problem| wrong(setting, problem))
    }

    fn required<T, E: std::fmt::Display>(
        &self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<T, ConfigError> {
        self.read(name, parse)?.ok_or(wrong(named(name)?, "is not set"))
    }

    /// How log lines look, if it is set.
    ///
    /// # Errors
    /// Neither `json` nor `text`.
    pub fn log_format(&self) -> Result<Option<LogFormat>, ConfigError> {
        self.read("PAYWRIGHT_LOG_FORMAT", |text| match text {
            "json" => Ok(LogFormat::Json),
            "text" => Ok(LogFormat::Text),
            _ => Err("must be json or text"),
        })
    }

    /// Where telemetry is sent, by the standard's variables (OpenTelemetry, "Environment Variable Specification" and
    /// "OTLP Exporter Configuration").
    ///
    /// # Errors
    /// An endpoint that is no URL; a protocol or an exporter that this program does not have.
    pub fn otlp(&self) -> Result<Otlp, ConfigError> {
        let disabled =
            self.standard("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let endpoint = |signal: &str, path: &str| {
            let exporters = self.standard(&format!("OTEL_{signal}_EXPORTER"));
            let exporters = exporters.unwrap_or_else(|| "otlp".to_owned());
            if disabled || !exporters.split(',').any(|name| name.trim() == "otlp") {
                return Ok(None);
            }
            let own = format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT");
            let url = match self.standard(&own) {
                Some(url) => {
                    otlp_url(&url).map(|url| Some(url.to_string())).map_err(|problem| ConfigError {
                        name: own,
                        problem: problem.to_owned(),
                        example: "http://127.0.0.1:4318/v1/traces",
                    })?
                }
                None => self
                    .read(OTLP, otlp_url)?
                    .map(|url| format!("{}/v1/{path}", url.as_str().trim_end_matches('/'))),
            };
            for name in
                [format!("OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"), "OTEL_EXPORTER_OTLP_PROTOCOL".to_owned()]
            {
                match self.standard(&name) {
                    Some(protocol) if url.is_some() && protocol != "http/protobuf" => {
                        let problem =
                            "must be http/protobuf, the only protocol that is spoken here".to_owned();
                        return Err(ConfigError { name, problem, example: "http/protobuf" });
                    }
                    Some(_) => break,
                    None => {}
                }
            }
            Ok(url)
        };
        Ok(Otlp { traces: endpoint("TRACES", "traces")?, metrics: endpoint("METRICS", "metrics")? })
    }

    /// A variable of a standard; empty counts as unset.
    fn standard(&self, name: &str) -> Option<String> {
        (self.environment)(name).filter(|value| !value.is_empty())
    }

    /// The database, as the service's role.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn database(&self) -> Result<Database, ConfigError> {
        let plaintext = self.required("PAYWRIGHT_ALLOW_PLAINTEXT", flag)?;
        Ok(Database {
            options: self.required("DATABASE_URL", |url| database_options(url, plaintext))?,
            connections: self.required("PAYWRIGHT_DATABASE_CONNECTIONS", |text| number(text, 1, 10_000))?,
            pooler: self.required("PAYWRIGHT_DATABASE_POOLER", |text| match text {
                "none" => Ok(Pooler::None),
                "transaction" => Ok(Pooler::Transaction),
                _ => Err("must be none or transaction"),
            })?,
        })
    }

    /// The database, as its owner.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn migration_database(&self) -> Result<PgConnectOptions, ConfigError> {
        let plaintext = self.required("PAYWRIGHT_ALLOW_PLAINTEXT", flag)?;
        match self.read("PAYWRIGHT_MIGRATION_DATABASE_URL", |url| database_options(url, plaintext))? {
            Some(options) => Ok(options),
            None => self.required("DATABASE_URL", |url| database_options(url, plaintext)),
        }
    }

    /// The payment provider.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn provider(&self) -> Result<ProviderApi, ConfigError> {
        Ok(ProviderApi {
            url: self.required("PAYWRIGHT_PROVIDER_URL", provider_url)?,
            api_key: self.required("PAYWRIGHT_PROVIDER_API_KEY", |text| match text {
                "" => Err("is empty"),
                key if key.bytes().all(|b| b.is_ascii_graphic()) => Ok(SecretString::from(key)),
                _ => Err("must be visible ASCII without blanks"),
            })?,
            timeout: self.required("PAYWRIGHT_PROVIDER_TIMEOUT", positive_duration)?,
        })
    }

    /// The two listeners.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn listeners(&self) -> Result<Listeners, ConfigError> {
        let address = |text: &str| SocketAddr::from_str(text).map_err(|_| "must be an address and a port");
        Ok(Listeners {
            public: self.required("PAYWRIGHT_LISTEN", address)?,
            operations: self.required("PAYWRIGHT_OPS_LISTEN", address)?,
            max_connections: self.required("PAYWRIGHT_MAX_CONNECTIONS", |text| number(text, 1, 1_000_000))?,
        })
    }

    /// How the service behaves.
    ///
    /// # Errors
    /// See [`ConfigError`]; also values that do not go together.
    pub fn service(&self, provider: &ProviderApi) -> Result<Service, ConfigError> {
        let windows = Windows {
            lease: self.required("PAYWRIGHT_LEASE", positive_duration)?,
            charge: self.required("PAYWRIGHT_CHARGE_WINDOW", positive_duration)?,
            key_retention: self.required("PAYWRIGHT_PROVIDER_KEY_RETENTION", positive_duration)?,
            attempt: provider.timeout,
            action: self.required("PAYWRIGHT_ACTION_WINDOW", positive_duration)?,
        };
        if windows.lease <= provider.timeout.saturating_add(Duration::from_secs(5)) {
            let problem = "must exceed PAYWRIGHT_PROVIDER_TIMEOUT by more than 5s: an attempt must end within its lease";
            return Err(wrong(named("PAYWRIGHT_LEASE")?, problem));
        }
        if windows.charge.saturating_add(Duration::from_secs(3600)) > windows.key_retention {
            let problem = "must be at least 1h shorter than PAYWRIGHT_PROVIDER_KEY_RETENTION: a charge is closed while the provider still knows its key";
            return Err(wrong(named("PAYWRIGHT_CHARGE_WINDOW")?, problem));
        }
        Ok(Service {
            sync_wait: self.required("PAYWRIGHT_SYNC_WAIT", duration)?,
            request_timeout: self.required("PAYWRIGHT_REQUEST_TIMEOUT", positive_duration)?,
            windows,
            idempotency_ttl: self.required("PAYWRIGHT_IDEMPOTENCY_TTL", positive_duration)?,
            max_in_flight: self.required("PAYWRIGHT_MAX_IN_FLIGHT", |text| number(text, 1, 100_000))?,
            rate_limit: self.required("PAYWRIGHT_RATE_LIMIT", |text| number(text, 0, 1_000_000))?,
            shutdown_grace: self.required("PAYWRIGHT_SHUTDOWN_GRACE", duration)?,
            shutdown_timeout: self.required("PAYWRIGHT_SHUTDOWN_TIMEOUT", duration)?,
        })
    }
}

fn named(name: &'static str) -> Result<&'static Setting, ConfigError> {
    SETTINGS.iter().find(|setting| setting.name == name).ok_or_else(|| ConfigError {
        name: name.to_owned(),
        problem: "is not a setting".to_owned(),
        example: "",
    })
}

fn wrong(setting: &'static Setting, problem: impl std::fmt::Display) -> ConfigError {
    ConfigError { name: setting.name.to_owned(), problem: problem.to_string(), example: setting.example }
}

fn file_name(name: &str) -> String {
    name.strip_prefix(PREFIX).unwrap_or(name).to_ascii_lowercase()
}

fn read_file(path: &Path) -> Result<BTreeMap<String, String>, ConfigError> {
    let problem = |problem: String| ConfigError {
        name: "--config".to_owned(),
        problem: format!("{}: {problem}", path.display()),
        example: "settings.toml, with lines such as sync_wait = \"8s\"",
    };
    let text = std::fs::read_to_string(path).map_err(|error| problem(error.to_string()))?;
    let table: toml::Table =
        text.parse().map_err(|error: toml::de::Error| problem(error.message().to_owned()))?;
    let mut values = BTreeMap::new();
    for (name, value) in table {
        if !SETTINGS.iter().any(|setting| file_name(setting.name) == name) {
            return Err(problem(format!("{name} is not a setting")));
        }
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(flag) => flag.to_string(),
            _ => return Err(problem(format!("{name} must be a string, an integer or a boolean"))),
        };
        values.insert(name, text);
    }
    Ok(values)
}

fn flag(text: &str) -> Result<bool, &'static str> {
    text.parse().map_err(|_| "must be true or false")
}

fn number<T: FromStr + PartialOrd + Copy + std::fmt::Display>(
    text: &str,
    least: T,
    most: T,
) -> Result<T, String> {
    text.parse::<T>()
        .ok()
        .filter(|number| (&least..=&most).contains(&number))
        .ok_or_else(|| format!("must be a number from {least} to {most}"))
}

/// `250ms`, `8s`, `15m`, `24h`.
fn duration(text: &str) -> Result<Duration, &'static str> {
    const WRONG: &str = "must be a number and one of ms, s, m, h";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at_checked(digits).ok_or(WRONG)?;
    let number: u64 = number.parse().map_err(|_| WRONG)?;
    let milliseconds = match unit {
        "ms" => Some(number),
        "s" => number.checked_mul(1_000),
        "m" => number.checked_mul(60_000),
        "h" => number.checked_mul(3_600_000),
        _ => None,
    };
    // a century is more than anybody waits, and far from where sums of times overflow
    milliseconds.filter(|ms| *ms <= 3_155_760_000_000).map(Duration::from_millis).ok_or(WRONG)
}

fn positive_duration(text: &str) -> Result<Duration, &'static str> {
    duration(text)
        .and_then(|duration| if duration.is_zero() { Err("must be more than nothing") } else { Ok(duration) })
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || IpAddr::from_str(bare).is_ok_and(|address| address.is_loopback())
}

fn database_options(url: &str, allow_plaintext: bool) -> Result<PgConnectOptions, String> {
    const FORM: &str = "must be postgres://user:password@host:port/database";
    let parsed = Url::parse(url).map_err(|_| FORM)?;
    if !matches!(parsed.scheme(), "postgres" | "postgresql") {
        return Err(FORM.to_owned());
    }
    // sqlx's own message may quote the URL, and with it the password
    let options = PgConnectOptions::from_str(url).map_err(|_| FORM)?;
    let local = options.get_socket().is_some()
        || options.get_host().starts_with('/')
        || is_loopback(options.get_host());
    if local || allow_plaintext {
        return Ok(options);
    }
    let says = parsed.query_pairs().any(|(name, _)| matches!(name.as_ref(), "sslmode" | "ssl-mode"));
    match options.get_ssl_mode() {
        PgSslMode::VerifyFull => Ok(options),
        _ if !says => Ok(options.ssl_mode(PgSslMode::VerifyFull)),
        _ => Err("must have sslmode=verify-full, because its host is not this machine (PAYWRIGHT_ALLOW_PLAINTEXT=true allows less)".to_owned()),
    }
}

fn otlp_url(text: &str) -> Result<Url, &'static str> {
    let url = Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or("must be an http or https URL")
}

fn provider_url(text: &str) -> Result<String, &'static str> {
    const FORM: &str = "must be an https URL without a path such as /v1 (http to the loopback host)";
    let url = Url::parse(text).map_err(|_| FORM)?;
    let loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => return Err(FORM),
    };
    let secure = url.scheme() == "https" || (url.scheme() == "http" && loopback);
    let bare = url.query().is_none()
        && url.fragment().is_none()
        && !url.path().trim_end_matches('/').ends_with("/v1");
    if secure && bare { Ok(url.as_str().trim_end_matches('/').to_owned()) } else { Err(FORM) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(environment: fn(&str) -> Option<String>) -> Source {
        Source { file: BTreeMap::new(), environment }
    }

    fn complete(name: &str) -> Option<String> {
        let value = match name {
            "DATABASE_URL" => "postgres://u:p@localhost/d",
            "PAYWRIGHT_PROVIDER_URL" => "http://127.0.0.1:12111",
            "PAYWRIGHT_PROVIDER_API_KEY" => "sk_test_1",
            _ => return None,
        };
        Some(value.to_owned())
    }

    fn service(environment: fn(&str) -> Option<String>) -> Result<Service, ConfigError> {
        let source = source(environment);
        source.service(&source.provider()?)
    }

    #[test]
    fn the_defaults_go_together() {
        let service = service(complete).unwrap();
        assert_eq!(service.windows.lease, Duration::from_secs(15));
        assert_eq!(service.windows.key_retention, Duration::from_secs(86_400));
        let listeners = source(complete).listeners().unwrap();
        assert_eq!((listeners.public.port(), listeners.max_connections), (8080, 4096));
        assert_eq!(source(complete).database().unwrap().connections, 20);
        assert_eq!(source(complete).database().unwrap().pooler, Pooler::None);
    }

    #[test]
    fn a_missing_setting_is_named_with_an_example() {
        let error = source(|_| None).database().map(drop).unwrap_err().to_string();
        assert_eq!(
            error,
            "DATABASE_URL is not set. For example: DATABASE_URL=postgres://payments@db.example/payments"
        );
    }

    #[test]
    fn a_lease_must_outlast_an_attempt() {
        let error = service(|name| match name {
            "PAYWRIGHT_LEASE" => Some("10s".to_owned()),
            _ => complete(name),
        });
        assert!(error.unwrap_err().to_string().starts_with("PAYWRIGHT_LEASE must exceed"));
    }

    #[test]
    fn a_charge_is_closed_while_its_key_is_known() {
        let error = service(|name| match name {
            "PAYWRIGHT_CHARGE_WINDOW" => Some("23h1ms".to_owned()),
            _ => complete(name),
        });
        assert!(error.unwrap_err().to_string().starts_with("PAYWRIGHT_CHARGE_WINDOW must be a number"));
        let error = service(|name| match name {
            "PAYWRIGHT_CHARGE_WINDOW" => Some("1381m".to_owned()),
            _ => complete(name),
        });
        assert!(error.unwrap_err().to_string().contains("at least 1h shorter"));
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, ms) in [("250ms", 250), ("8s", 8_000), ("15m", 900_000), ("24h", 86_400_000), ("0s", 0)] {
            assert_eq!(duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "8", "s", "-1s", "1.5s", "8 s", "1d", "99999999999999999999s", "99999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_remote_database_is_verified() {
        let mode = |url: &str, plain| database_options(url, plain).map(|options| options.get_ssl_mode());
        assert!(matches!(mode("postgres://u@db.example/d", false), Ok(PgSslMode::VerifyFull)));
        assert!(mode("postgres://u@db.example/d?sslmode=require", false).is_err());
        assert!(mode("postgres://u@db.example/d?sslmode=disable", true).is_ok());
        assert!(mode("postgres://u@127.0.0.1/d?sslmode=disable", false).is_ok());
        assert!(mode("postgres://u@[::1]/d", false).is_ok());
        let error = mode("postgres://u:hunter2@host:port/d", false).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }

    #[test]
    fn the_provider_is_reached_safely() {
        assert_eq!(provider_url("https://api.stripe.com/"), Ok("https://api.stripe.com".to_owned()));
        assert!(provider_url("http://localhost:12111").is_ok());
        for wrong in [
            "http://api.stripe.com",
            "https://api.stripe.com/v1",
            "https://api.stripe.com/v1/",
            "api.stripe.com",
            "ftp://x",
        ] {
            assert!(provider_url(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn telemetry_goes_where_the_standard_says() {
        let otlp = |environment| source(environment).otlp();
        assert_eq!(otlp(|_| None), Ok(Otlp { traces: None, metrics: None }));
        let one = otlp(|name| (name == OTLP).then(|| "http://collector:4318/".to_owned())).unwrap();
        assert_eq!(one.traces.as_deref(), Some("http://collector:4318/v1/traces"));
        assert_eq!(one.metrics.as_deref(), Some("http://collector:4318/v1/metrics"));
        let own = otlp(|name| match name {
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT" => Some("https://traces.example/in".to_owned()),
            OTLP => Some("http://collector:4318".to_owned()),
            "OTEL_METRICS_EXPORTER" => Some("prometheus".to_owned()),
            _ => None,
        });
        assert_eq!(own, Ok(Otlp { traces: Some("https://traces.example/in".to_owned()), metrics: None }));
        let off = otlp(|name| match name {
            OTLP => Some("http://collector:4318".to_owned()),
            "OTEL_SDK_DISABLED" => Some("true".to_owned()),
            _ => None,
        });
        assert_eq!(off, Ok(Otlp { traces: None, metrics: None }));
        let wrong = otlp(|name| (name == OTLP).then(|| "collector".to_owned())).unwrap_err().to_string();
        assert!(wrong.starts_with("OTEL_EXPORTER_OTLP_ENDPOINT must be an http"), "{wrong}");
        let grpc = otlp(|name| match name {
            OTLP => Some("http://collector:4317".to_owned()),
            "OTEL_EXPORTER_OTLP_PROTOCOL" => Some("grpc".to_owned()),
            _ => None,
        });
        assert!(
            grpc.unwrap_err().to_string().starts_with("OTEL_EXPORTER_OTLP_PROTOCOL must be http/protobuf")
        );
    }

    #[test]
    fn secrets_do_not_show() {
        let provider = source(complete).provider().unwrap();
        assert!(!format!("{provider:?}").contains("sk_test_1"));
    }
}
