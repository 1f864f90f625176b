//! Connections that come back after any failure.
//!
//! The driver's own pool has no bound on what it does with a connection that is given back in the middle of a statement: it
//! waits for the answer, and when the server has vanished without a word it waits for ever, with the place of the
//! connection taken. Enough of these and the pool is empty until the process is restarted (sqlx, issue 4349). And its sockets
//! cannot be told to send keepalives or to give up what is not acknowledged (sqlx, issue 3540). So here every wait for the
//! database has an end on this side, and a connection that did not answer in time is closed, never kept.

use crate::error::Condition;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryFutureExt, TryStreamExt, stream};
use sqlx::error::BoxDynError;
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgConnection, PgDatabaseError, PgQueryResult, PgRow, PgSeverity,
    PgStatement, PgTypeInfo,
};
use sqlx::{Connection, Either, Error, Execute, Executor, Postgres, SqlStr};
use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

/// How a connection is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pooler {
    /// It is ours, from its beginning to its end.
    None,
    /// Behind it is a transaction pooler, such as PgBouncer with `pool_mode = transaction`: two transactions may meet two
    /// servers. Nothing outlives a transaction then, neither settings nor prepared statements.
    Transaction,
}

/// How long things may take. All of them count on this side of the network.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Connections at once.
    pub(crate) connections: u32,
    /// To get one: waiting for a place, looking whether one at rest still lives, opening another.
    pub(crate) acquire: Duration,
    /// A statement, from its first byte to the last of its answer.
    pub(crate) statement: Duration,
}

/// A connection that rested so long is asked whether it still lives before it is used.
const IDLE_BEFORE_CHECK: Duration = Duration::from_secs(1);
/// How long it takes at most to open one, and how many are opened at once: the first is of use the sooner, and a server that
/// has just come back is not asked for hundreds of log-ins in the same moment.
const CONNECT: Duration = Duration::from_secs(1);
const OPENING: usize = 4;
/// How long it may take to say so, and to end what a caller left behind who did not wait for it.
const CHECK: Duration = Duration::from_millis(500);
const RECOVER: Duration = Duration::from_secs(1);
/// Saying goodbye.
const CLOSE: Duration = Duration::from_millis(500);
/// Nobody needed it for so long: it is closed. Firewalls forget connections after some minutes.
const IDLE: Duration = Duration::from_secs(300);
/// No connection gets older, so that load spreads again over servers that came later.
const AGE: Duration = Duration::from_secs(1800);
/// A reason that was not given for so long is over.
const LATELY: Duration = Duration::from_secs(10);
/// A connection that was opened just now leads where any other would.
const FRESH: Duration = Duration::from_secs(1);
/// Between two tries to connect to a server that says it cannot take us yet: at first, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// At most so many connections to one database. A clone shares them.
#[derive(Clone)]
pub(crate) struct Connections {
    shared: Arc<Shared>,
    /// When waiting for one ends in any case.
    latest: Option<Instant>,
}

struct Shared {
    options: PgConnectOptions,
    limits: Limits,
    /// What begins a transaction behind a pooler; `None` without one.
    begin: Option<String>,
    places: Arc<Semaphore>,
    /// Connections that are opened at the same time.
    opening: Semaphore,
    rest: Mutex<Rest>,
    open: Arc<AtomicU32>,
    condition: Mutex<Option<(Condition, Instant)>>,
}

/// What nobody uses, or who would use it.
#[derive(Default)]
struct Rest {
    /// The one that was used last is at the back.
    idle: VecDeque<Idle>,
    /// Callers with a place for whom one is being opened. They came before all who wait for a place, so what is given back
    /// goes to them first: opening may take longer than a caller has time.
    wanted: VecDeque<oneshot::Sender<Lent>>,
}

/// An open connection.
struct Live {
    raw: PgConnection,
    since: Instant,
    _counted: Counted,
}

struct Counted(Arc<AtomicU32>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

struct Idle {
    live: Live,
    since: Instant,
    /// Another did not answer in time.
    suspect: bool,
}

impl std::fmt::Debug for Connections {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connections").field("limits", &self.shared.limits).finish_non_exhaustive()
    }
}

impl Connections {
    /// None is opened before the first is needed.
    ///
    /// `settings` are the server's, for every connection.
    pub(crate) fn new(
        options: PgConnectOptions,
        pooler: Pooler,
        settings: &[(&str, &str)],
        limits: Limits,
    ) -> Self {
        let (options, begin) = match pooler {
            Pooler::None => (options.options(settings.iter().copied()), None),
            Pooler::Transaction => {
                let set: String =
                    settings.iter().map(|(name, value)| format!("; SET LOCAL {name} = '{value}'")).collect();
                // a pooler refuses what it does not know at the start, and a statement that is kept would be another server's
                let options = options.statement_cache_capacity(0).extra_float_digits(None);
                (options, Some(format!("BEGIN{set}")))
            }
        };
        let places = usize::try_from(limits.connections).unwrap_or(Semaphore::MAX_PERMITS);
        Self {
            shared: Arc::new(Shared {
                options,
                limits,
                begin,
                places: Arc::new(Semaphore::new(places)),
                opening: Semaphore::new(OPENING),
                rest: Mutex::default(),
                open: Arc::default(),
                condition: Mutex::default(),
            }),
            latest: None,
        }
    }

    /// The same for work that is not to be begun later than this.
    pub(crate) fn until(&self, latest: Instant) -> Self {
        Self { shared: Arc::clone(&self.shared), latest: Some(latest) }
    }

    /// The most there can be.
    pub(crate) fn most(&self) -> u32 {
        self.shared.limits.connections
    }

    /// All that are open, and how many of them are at rest.
    pub(crate) fn count(&self) -> (u32, usize) {
        (self.shared.open.load(Ordering::Relaxed), self.shared.rest().idle.len())
    }

    /// Why a write was refused lately.
    pub(crate) fn condition(&self) -> Option<Condition> {
        self.shared.condition().filter(|(_, at)| at.elapsed() <= LATELY).map(|(condition, _)| condition)
    }

    /// A connection for this caller alone.
    ///
    /// # Errors
    /// [`Error::PoolTimedOut`] when all are in use for too long; else why none can be opened.
    pub(crate) async fn acquire(&self) -> Result<Lent, Error> {
        let until = Instant::now() + self.shared.limits.acquire;
        let until = self.latest.map_or(until, |latest| until.min(latest));
        let place = timeout_at(until, Arc::clone(&self.shared.places).acquire_owned())
            .await
            .map_err(|_| Error::PoolTimedOut)?
            .map_err(|_| Error::PoolClosed)?;
        let returned = match self.shared.rested(until).await {
            Ok(live) => return Ok(Lent::new(&self.shared, live, place)),
            Err(returned) => returned,
        };
        // Not by the caller: what it has cost so far would be lost when the caller's time is up, and under load nobody would
        // ever be the one whose time suffices.
        let (tell, told) = oneshot::channel();
        let refused = Arc::new(Mutex::new(None));
        tokio::spawn(Arc::clone(&self.shared).open_one(place, until, Arc::clone(&refused), tell));
        let given = tokio::select! {
            biased;
            Ok(opened) = told => opened,
            Ok(returned) = returned => Ok(returned),
            // what it said last says more than that it said nothing in the end
            () = sleep_until(until) => {
                let refused = refused.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(refused.unwrap_or_else(|| silent("no connection")))
            }
        };
        given.map(|lent| lent.known(false))
    }

    /// Waits for this at most as long as for a statement.
    ///
    /// # Errors
    /// [`silent`], or what the work says.
    pub(crate) async fn within<T, E: From<Error>>(
        &self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, E> {
        timeout(self.shared.limits.statement, work).await.unwrap_or_else(|_| Err(silent("no answer").into()))
    }

    fn asked<E>(&self, query: E) -> Asked<E> {
        Asked { query, named: self.shared.begin.is_none() }
    }

    /// Waits until all are given back, closes them, and opens no more.
    pub(crate) async fn close(&self) {
        let all = self.shared.places.acquire_many(self.shared.limits.connections).await;
        let idle: Vec<Idle> = self.shared.rest().idle.drain(..).collect();
        for idle in idle {
            let _ = timeout(CLOSE, idle.live.raw.close()).await;
        }
        self.shared.places.close();
        drop(all);
    }
}

/// A server that says nothing.
fn silent(what: &'static str) -> Error {
    Error::Io(io::Error::new(io::ErrorKind::TimedOut, format!("{what} from the database in time")))
}

impl Rest {
    fn next(&mut self) -> Result<Idle, oneshot::Receiver<Lent>> {
        self.idle.pop_back().ok_or_else(|| {
            let (give, given) = oneshot::channel();
            self.wanted.retain(|waiting| !waiting.is_closed());
            self.wanted.push_back(give);
            given
        })
    }
}

impl Shared {
    fn rest(&self) -> MutexGuard<'_, Rest> {
        self.rest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn condition(&self) -> MutexGuard<'_, Option<(Condition, Instant)>> {
        self.condition.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens a connection for a caller; if the caller is gone by then, for the next.
    async fn open_one(
        self: Arc<Self>,
        place: OwnedSemaphorePermit,
        until: Instant,
        refused: Arc<Mutex<Option<Error>>>,
        mut tell: oneshot::Sender<Result<Lent, Error>>,
    ) {
        let mut pause = FIRST_PAUSE;
        loop {
            let opening = tokio::select! {
                opening = self.opening.acquire() => opening,
                () = tell.closed() => return,
            };
            let connected = timeout(CONNECT, PgConnection::connect_with(&self.options)).await;
            drop(opening);
            let opened = match connected {
                Ok(Ok(raw)) => {
                    self.open.fetch_add(1, Ordering::Relaxed);
                    let counted = Counted(Arc::clone(&self.open));
                    let live = Live { raw, since: Instant::now(), _counted: counted };
                    Ok(Lent::new(&self, live, place).known(true))
                }
                // it restarts, or has no place left: there may be one in a moment, or another's comes back
                Ok(Err(error)) if is_starting(&error) && Instant::now() + pause < until => {
                    *refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    tokio::select! {
                        () = sleep(pause) => {}
                        () = tell.closed() => return,
                    }
                    pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
                    continue;
                }
                Ok(Err(error)) => {
                    self.note(&error);
                    Err(error)
                }
                Err(_) if Instant::now() < until => continue,
                Err(_) => Err(silent("no connection")),
            };
            // what nobody takes goes to those at rest
            drop(tell.send(opened));
            return;
        }
    }

    /// One at rest, or a way to get the next that is given back.
    async fn rested(&self, until: Instant) -> Result<Live, oneshot::Receiver<Lent>> {
        loop {
            let Idle { mut live, since, suspect } = self.rest().next()?;
            if live.since.elapsed() > AGE || since.elapsed() > IDLE {
                continue;
            }
            if since.elapsed() < IDLE_BEFORE_CHECK && !suspect {
                return Ok(live);
            }
            let check = until.min(Instant::now() + CHECK);
            if matches!(timeout_at(check, live.raw.ping()).await, Ok(Ok(()))) {
                return Ok(live);
            }
            // those that rested longer are no better
            self.forget_idle();
        }
    }

    /// What was at rest is closed without a word: nobody would hear it.
    fn forget_idle(&self) {
        let forgotten = std::mem::take(&mut self.rest().idle);
        drop(forgotten);
    }

    /// What is at rest is looked at before it is used. It is not closed: a server that is slow has better to do than to log
    /// all of us in again.
    fn suspect_idle(&self) {
        for idle in &mut self.rest().idle {
            idle.suspect = true;
        }
    }

    fn give_back(self: &Arc<Self>, live: Live, place: OwnedSemaphorePermit) {
        if live.since.elapsed() >= AGE {
            return;
        }
        let mut returned = Lent::new(self, live, place).known(true);
        let mut rest = self.rest();
        while let Some(waiting) = rest.wanted.pop_front() {
            match waiting.send(returned) {
                Ok(()) => return,
                Err(kept) => returned = kept,
            }
        }
        let (Some(live), place) = (returned.live.take(), returned.place.take()) else { return };
        rest.idle.push_back(Idle { live, since: Instant::now(), suspect: false });
        // one at a time is enough: it is given back more often than it is forgotten
        let forgotten = rest.idle.front().is_some_and(|idle| idle.since.elapsed() > IDLE);
        let forgotten = if forgotten { rest.idle.pop_front() } else { None };
        drop(rest);
        drop(forgotten);
        drop(place);
    }

    /// Remembers why the server takes no writes, and says it once.
    fn note(&self, error: &Error) {
        let Some(condition) = Condition::of(error) else { return };
        let before = self.condition().replace((condition, Instant::now()));
        if before.is_none_or(|(before, at)| before != condition || at.elapsed() > LATELY) {
            tracing::error!(%error, condition = condition.name(), "the database takes no writes");
        }
    }
}

/// What a statement's end says about its connection.
enum After {
    /// It can be used again.
    Whole,
    /// Nobody knows what it would answer next.
    Broken,
    /// It said nothing in time. Others may not either.
    Silent,
    /// It is over, and so are most likely all others.
    Lost,
    /// A primary that became a standby keeps its connections; its name may lead to another by now.
    Elsewhere,
}

impl After {
    fn of(error: Option<&Error>) -> Self {
        match error {
            None | Some(Error::RowNotFound | Error::Encode(_)) => Self::Whole,
            Some(Error::Io(error)) if error.kind() == io::ErrorKind::TimedOut => Self::Silent,
            Some(Error::Io(_) | Error::Tls(_) | Error::Protocol(_)) => Self::Lost,
            Some(Error::Database(error)) => {
                let fatal = error
                    .try_downcast_ref::<PgDatabaseError>()
                    .is_none_or(|error| matches!(error.severity(), PgSeverity::Fatal | PgSeverity::Panic));
                match error.code().as_deref() {
                    _ if fatal => Self::Lost,
                    Some("25006") => Self::Elsewhere,
                    _ => Self::Whole,
                }
            }
            Some(_) => Self::Broken,
        }
    }
}

/// Whether it is worth asking again in a moment: nobody listens yet, the server starts, stops or has no place.
fn is_starting(error: &Error) -> bool {
    match error {
        Error::Io(error) => matches!(
            error.kind(),
            io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset | io::ErrorKind::UnexpectedEof
        ),
        Error::Database(error) => {
            matches!(error.code().as_deref(), Some("57P03" | "53300" | "57P01" | "57P02"))
        }
        _ => false,
    }
}

/// A connection that is lent. Given back without a word about how its last statement ended, it is looked at first.
pub(crate) struct Lent {
    live: Option<Live>,
    shared: Arc<Shared>,
    place: Option<OwnedSemaphorePermit>,
    /// Whether its last statement was waited for to its end.
    known: bool,
}

impl Lent {
    fn new(shared: &Arc<Shared>, live: Live, place: OwnedSemaphorePermit) -> Self {
        Self { live: Some(live), shared: Arc::clone(shared), place: Some(place), known: false }
    }

    /// Whether it can be given back as it is.
    fn known(mut self, known: bool) -> Self {
        self.known = known;
        self
    }

    /// Keeps what follows on one server, and gives it its bounds, where a pooler would not.
    async fn enter(&mut self) -> Result<(), Error> {
        let shared = Arc::clone(&self.shared);
        if let Some(begin) = &shared.begin {
            sqlx::raw_sql(sqlx::AssertSqlSafe(begin.as_str())).execute(&mut **self).await?;
        }
        Ok(())
    }

    /// Ends what [`Lent::enter`] began. An answer that is lost here is worth more than the one before: nobody knows what
    /// became of it.
    async fn leave<T>(&mut self, result: Result<T, Error>) -> Result<T, Error> {
        if self.shared.begin.is_some() {
            let end = if result.is_ok() { "COMMIT" } else { "ROLLBACK" };
            sqlx::raw_sql(end).execute(&mut **self).await?;
        }
        result
    }

    /// The last statement ended like this.
    fn ended(mut self, error: Option<&Error>) {
        if let Some(error) = error {
            self.shared.note(error);
        }
        let fresh = self.live.as_ref().is_some_and(|live| live.since.elapsed() < FRESH);
        match After::of(error) {
            After::Whole => self.known = true,
            After::Elsewhere if fresh => self.known = true,
            After::Broken => drop(self.live.take()),
            After::Silent => {
                drop(self.live.take());
                self.shared.suspect_idle();
            }
            After::Lost | After::Elsewhere => {
                drop(self.live.take());
                self.shared.forget_idle();
            }
        }
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let (Some(mut live), Some(place)) = (self.live.take(), self.place.take()) else { return };
        if self.known {
            self.shared.give_back(live, place);
            return;
        }
        // Whoever asked did not wait for the answer: a caller hung up. To close it would cost the server a process each
        // time; the answer is most likely on its way. The place stays taken meanwhile.
        let shared = Arc::clone(&self.shared);
        let recover = async move {
            if matches!(timeout(RECOVER, live.raw.ping()).await, Ok(Ok(()))) {
                shared.give_back(live, place);
            }
        };
        // without a runtime the process ends, and the connection with it
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(recover);
        }
    }
}

impl Deref for Lent {
    type Target = PgConnection;

    #[expect(clippy::expect_used, reason = "it is taken when it is given back, and nobody has it after that")]
    fn deref(&self) -> &PgConnection {
        &self.live.as_ref().expect("a lent connection").raw
    }
}

impl DerefMut for Lent {
    #[expect(clippy::expect_used, reason = "it is taken when it is given back, and nobody has it after that")]
    fn deref_mut(&mut self) -> &mut PgConnection {
        &mut self.live.as_mut().expect("a lent connection").raw
    }
}

/// A statement, as the connection is to treat it.
struct Asked<E> {
    query: E,
    /// Whether the server may keep it under a name. Without a cache the driver would give it one all the same, and never
    /// take it back.
    named: bool,
}

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Asked<E> {
    fn sql(self) -> SqlStr {
        self.query.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.query.statement()
    }

    fn take_arguments(&mut self) -> Result<Option<PgArguments>, BoxDynError> {
        self.query.take_arguments()
    }

    fn persistent(&self) -> bool {
        self.named && self.query.persistent()
    }
}

/// One statement, on whatever connection is free, as a transaction of its own.
macro_rules! alone {
    ($connections:expr, $lent:ident => $work:expr) => {{
        let connections = $connections;
        async move {
            let mut $lent = connections.acquire().await?;
            let result = connections
                .within(async {
                    $lent.enter().await?;
                    let result = $work.await;
                    $lent.leave(result).await
                })
                .await;
            $lent.ended(result.as_ref().err());
            result
        }
    }};
}

impl<'p> Executor<'p> for &'p Connections {
    type Database = Postgres;

    /// The rows come when all of them are there: a slow reader keeps no connection.
    fn fetch_many<'e, 'q: 'e, E>(self, query: E) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let query = self.asked(query);
        alone!(self, lent => lent.fetch_many(query).try_collect::<Vec<_>>())
            .map_ok(|all| stream::iter(all.into_iter().map(Ok)))
            .try_flatten_stream()
            .boxed()
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let query = self.asked(query);
        alone!(self, lent => lent.fetch_optional(query)).boxed()
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        alone!(self, lent => lent.prepare_with(sql, parameters)).boxed()
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<sqlx::Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        alone!(self, lent => lent.describe(sql)).boxed()
    }
}
