//! What becomes of the store's connections when the network or the server fails under them.

use super::*;
use devstack::fault_proxy::End;
use devstack::{Fault, FaultProxy};
use tokio::task::JoinHandle;

const CONNECTIONS: u32 = 4;
/// No wait for the database is longer: for a connection and for a statement, and what a busy machine adds.
const BOUND: Duration = Duration::from_secs(5);
/// From the repair to the first answer.
const RECOVERY: Duration = Duration::from_secs(3);

/// A store behind a proxy.
struct Behind {
    db: Db,
    proxy: FaultProxy,
    store: Store,
}

type Read = JoinHandle<(Result<(), StoreError>, Duration)>;

impl Behind {
    async fn new() -> Result<Self> {
        let db = Db::new().await?;
        let options = PgConnectOptions::from_str(db.database.service_url())?;
        let proxy = FaultProxy::start(format!("{}:{}", options.get_host(), options.get_port())).await?;
        let store = Store::open(through(&proxy, options), CONNECTIONS, Pooler::None);
        Ok(Self { db, proxy, store })
    }

    fn read(&self) -> Read {
        let store = self.store.clone();
        tokio::spawn(async move {
            let began = Instant::now();
            let read = store.find_key(MerchantId::at(now()), &[0; 32]).await;
            (read.map(drop), began.elapsed())
        })
    }

    /// Nobody reads the keys until the end of the transaction.
    async fn lock(&self) -> Result<sqlx::Transaction<'static, sqlx::Postgres>> {
        let mut lock = self.db.owner.begin().await?;
        sqlx::query("LOCK TABLE api_keys IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await?;
        Ok(lock)
    }

    async fn wait_for_lock(&self, waiting: u32) -> Result<()> {
        let statement = "SELECT count(*) FROM pg_stat_activity
                         WHERE datname = current_database() AND wait_event_type = 'Lock'";
        let all = async {
            while sqlx::query_scalar::<_, i64>(statement).fetch_one(&self.db.owner).await?
                < i64::from(waiting)
            {
                tokio::task::yield_now().await;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(BOUND, all).await??;
        Ok(())
    }

    /// So many reads, all of them with their statement at the server, held up by the lock.
    async fn reads_under_way(
        &self,
        reads: u32,
    ) -> Result<(Vec<Read>, sqlx::Transaction<'static, sqlx::Postgres>)> {
        let lock = self.lock().await?;
        let began: Vec<Read> = (0..reads).map(|_| self.read()).collect();
        self.wait_for_lock(reads).await?;
        Ok((began, lock))
    }

    /// How long it takes until a read is answered.
    async fn recovery(&self) -> Duration {
        let began = Instant::now();
        while self.read().await.unwrap().0.is_err() {
            assert!(began.elapsed() < BOUND, "no read is answered");
        }
        began.elapsed()
    }

    /// Every place can be used at once: none is lost.
    async fn has_all_connections(&self) -> Result<()> {
        let (reads, lock) = self.reads_under_way(CONNECTIONS).await?;
        lock.rollback().await?;
        for read in reads {
            read.await?.0?;
        }
        Ok(())
    }

    async fn close(self) -> Result<()> {
        self.store.close().await;
        drop(self.proxy);
        self.db.close().await
    }
}

fn through(proxy: &FaultProxy, options: PgConnectOptions) -> PgConnectOptions {
    options.host("127.0.0.1").port(proxy.port())
}

async fn all_unavailable(reads: Vec<Read>) -> Result<()> {
    for read in reads {
        let (result, took) = read.await?;
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
        assert!(took < BOUND, "{took:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_black_hole_with_statements_under_way_costs_no_connection() -> Result<()> {
    let db = Behind::new().await?;
    let (reads, lock) = db.reads_under_way(CONNECTIONS).await?;
    db.proxy.set(Fault::BlackHole).await?;
    lock.rollback().await?;
    all_unavailable(reads).await?;
    all_unavailable((0..3 * CONNECTIONS).map(|_| db.read()).collect()).await?;

    // some are still on their way when it ends
    let waiting: Vec<Read> = (0..CONNECTIONS).map(|_| db.read()).collect();
    tokio::task::yield_now().await;
    db.proxy.set(Fault::Pass).await?;
    let took = db.recovery().await;
    assert!(took < RECOVERY, "{took:?}");
    for read in waiting {
        assert!(read.await?.1 < BOUND);
    }
    db.has_all_connections().await?;
    db.close().await
}

#[tokio::test]
async fn connections_that_fell_silent_are_replaced() -> Result<()> {
    let db = Behind::new().await?;
    let (reads, lock) = db.reads_under_way(CONNECTIONS).await?;
    db.proxy.silence();
    lock.rollback().await?;
    let took = db.recovery().await;
    assert!(took < RECOVERY, "{took:?}");
    all_unavailable(reads).await?;
    db.has_all_connections().await?;

    // at rest they are looked at before they are used: nobody sees an error
    tokio::time::sleep(Duration::from_millis(1100)).await;
    db.proxy.silence();
    let (result, took) = db.read().await?;
    assert!(result.is_ok() && took < Duration::from_secs(1), "{result:?} after {took:?}");
    db.close().await
}

/// Why the store does not use the driver's own pool. When this fails, the driver has learnt it.
#[tokio::test]
async fn the_drivers_own_pool_does_not_come_back() -> Result<()> {
    let db = Behind::new().await?;
    let options = PgConnectOptions::from_str(db.db.database.service_url())?;
    let pool = sqlx::postgres::PgPoolOptions::new()
        .max_connections(2)
        .acquire_timeout(Duration::from_secs(2))
        .connect_with(through(&db.proxy, options))
        .await?;
    let lock = db.lock().await?;
    let mut reads = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let pool = pool.clone();
        reads.spawn(async move { sqlx::query("SELECT 1 FROM api_keys").execute(&pool).await });
    }
    db.wait_for_lock(2).await?;
    db.proxy.set(Fault::BlackHole).await?;
    reads.shutdown().await;
    lock.rollback().await?;
    db.proxy.set(Fault::Pass).await?;

    let later = sqlx::query("SELECT 1").execute(&pool).await;
    assert!(matches!(later, Err(sqlx::Error::PoolTimedOut)), "{later:?}");
    drop(pool);
    db.close().await
}

#[tokio::test]
async fn callers_who_hang_up_cost_no_connection() -> Result<()> {
    let db = Behind::new().await?;
    for _ in 0..5 {
        let (reads, lock) = db.reads_under_way(CONNECTIONS).await?;
        for read in &reads {
            read.abort();
        }
        lock.rollback().await?;
    }
    db.has_all_connections().await?;
    assert_eq!(
        db.proxy.connections(),
        u64::from(CONNECTIONS),
        "nor does the server start a process for each"
    );
    db.close().await
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_begun() -> Result<()> {
    let db = Behind::new().await?;
    let (reads, lock) = db.reads_under_way(CONNECTIONS).await?;
    let payment = new_payment(merchant(), "order-1");
    let began = Instant::now();
    let latest = began + Duration::from_millis(200);
    let refused = claim_until(&db.store, &payment, "key", LEASE, latest).await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    lock.rollback().await?;
    for read in reads {
        read.await?.0?;
    }
    assert_eq!(db.db.count("operations").await?, 0);
    db.close().await
}

#[tokio::test]
async fn a_server_that_is_back_in_a_moment_is_waited_for() -> Result<()> {
    let db = Behind::new().await?;
    db.read().await?.0?;
    db.proxy.set(Fault::Refuse).await?;
    // whoever finds a connection broken cannot tell how far it came
    all_unavailable(vec![db.read()]).await?;
    let meanwhile = db.read();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!meanwhile.is_finished());
    db.proxy.set(Fault::Pass).await?;
    meanwhile.await?.0?;
    db.has_all_connections().await?;

    db.proxy.set(Fault::CutAnswer { after: 0, end: End::Reset }).await?;
    all_unavailable((0..CONNECTIONS).map(|_| db.read()).collect()).await?;
    db.proxy.set(Fault::Pass).await?;
    let took = db.recovery().await;
    assert!(took < RECOVERY, "{took:?}");
    db.has_all_connections().await?;
    db.close().await
}

#[tokio::test]
async fn a_server_without_a_place_is_asked_with_those_there_are() -> Result<()> {
    let db = Behind::new().await?;
    let limit = format!("ALTER DATABASE {} CONNECTION LIMIT 2", db.db.database.name());
    sqlx::raw_sql(sqlx::AssertSqlSafe(limit)).execute(&db.db.owner).await?;
    // the owner of the database takes no place of the service's
    let reads: Vec<Read> = (0..5 * CONNECTIONS).map(|_| db.read()).collect();
    let mut answered = 0;
    for read in reads {
        let (result, took) = read.await?;
        assert!(took < BOUND, "{took:?}");
        answered += u32::from(result.is_ok());
    }
    assert!(answered > 0, "a busy server answers those it can");
    let limit = format!("ALTER DATABASE {} CONNECTION LIMIT -1", db.db.database.name());
    sqlx::raw_sql(sqlx::AssertSqlSafe(limit)).execute(&db.db.owner).await?;
    db.recovery().await;
    db.has_all_connections().await?;
    db.close().await
}

#[tokio::test]
async fn who_waits_for_one_to_be_opened_is_not_overtaken() -> Result<()> {
    let db = Behind::new().await?;
    let limit = format!("ALTER DATABASE {} CONNECTION LIMIT 2", db.db.database.name());
    sqlx::raw_sql(sqlx::AssertSqlSafe(limit)).execute(&db.db.owner).await?;
    // one of them is another store's
    db.read().await?.0?;
    // longer than anybody waits for a connection, more callers than places: all but one place are of callers who wait in
    // vain for one to be opened, while others come and go
    let end = Instant::now() + Duration::from_secs(4);
    let callers: Vec<JoinHandle<Result<(), StoreError>>> = (0..3 * CONNECTIONS)
        .map(|_| {
            let store = db.store.clone();
            tokio::spawn(async move {
                while Instant::now() < end {
                    store.find_key(MerchantId::at(now()), &[0; 32]).await?;
                }
                Ok(())
            })
        })
        .collect();
    for caller in callers {
        caller.await??;
    }
    db.close().await
}

#[tokio::test]
async fn who_asks_for_health_does_not_wait_behind_requests() -> Result<()> {
    let db = Behind::new().await?;
    let (reads, lock) = db.reads_under_way(CONNECTIONS).await?;
    assert_eq!(db.store.check_schema().await?, Ok(()));
    assert_eq!(db.store.condition().await?, None);
    lock.rollback().await?;
    for read in reads {
        read.await?.0?;
    }
    db.close().await
}

#[tokio::test]
async fn a_database_that_only_reads_says_so() -> Result<()> {
    let db = Behind::new().await?;
    let merchant_id = merchant();
    let read_only = |word: &str| {
        format!("ALTER DATABASE {} SET default_transaction_read_only = {word}", db.db.database.name())
    };
    sqlx::raw_sql(sqlx::AssertSqlSafe(read_only("on"))).execute(&db.db.owner).await?;
    let refused = claim(&db.store, &new_payment(merchant_id, "order-1"), "key").await;
    assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    assert_eq!(db.store.condition().await?, Some(persistence::Condition::ReadOnly));
    assert_eq!(db.db.count("operations").await?, 0);

    // The connections are the old ones, and so are their settings: as after a failover that the name follows.
    let off = format!("BEGIN READ WRITE; {}; COMMIT", read_only("off"));
    sqlx::raw_sql(sqlx::AssertSqlSafe(off)).execute(&db.db.owner).await?;
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let began = Instant::now();
    while claim(&db.store, &new_payment(merchant_id, "order-1"), "key").await.is_err() {
        assert!(began.elapsed() < RECOVERY, "it is still refused");
    }
    db.close().await
}

#[tokio::test]
async fn behind_a_transaction_pooler_each_statement_brings_its_own() -> Result<()> {
    let db = Db::new().await?;
    let options = PgConnectOptions::from_str(db.database.service_url())?;
    let store = Store::open(options, 2, Pooler::Transaction);
    let merchant_id = merchant();
    let payment = new_payment(merchant_id, "order-1");
    claimed(&store, &payment, "key").await?;
    // an error ends the transaction, and the connection serves the next
    let again = claim(&store, &new_payment(merchant_id, "order-1"), "other").await?;
    assert_eq!(again, Claimed::ReferenceUsed(payment.id));
    assert!(store.find_payment(merchant_id, payment.id).await?.is_some());
    assert_eq!(store.connections(), (1, 1));

    // nothing is asked for at the start, and the bounds hold all the same
    let mut lock = db.owner.begin().await?;
    sqlx::query("LOCK TABLE payments IN ACCESS EXCLUSIVE MODE").execute(&mut *lock).await?;
    let refused = store.find_payment(merchant_id, payment.id).await.unwrap_err();
    assert!(refused.to_string().contains("lock timeout"), "{refused}");
    lock.rollback().await?;
    store.close().await;
    db.close().await
}
