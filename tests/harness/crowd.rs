//! Customers by the thousand, who share as many connections as they need at once.

use crate::load::Seen;
use crate::wire::{Wire, WireError, WireHead};
use crate::{Answer, Api, payment};
use anyhow::{Context, Result};
use reqwest::header::{HeaderMap, HeaderValue, LOCATION};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use uuid::Uuid;

/// Customers of one merchant.
#[derive(Debug, Clone)]
pub struct Crowd(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    api: Api,
    host: String,
    head: WireHead,
    patience: Duration,
    /// One for each connection that may still be opened.
    room: Arc<Semaphore>,
    most: usize,
    /// Requests that found all of them in use.
    crowded_out: AtomicUsize,
    /// The one that rested for the shortest time is used first, as client libraries do.
    resting: Mutex<Vec<Connection>>,
    /// What was taken or accepted, for the witnesses.
    kept: Mutex<Vec<Kept>>,
}

#[derive(Debug)]
struct Connection {
    wire: Wire,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug)]
struct Kept {
    key: Uuid,
    status: u16,
    location: String,
    body: Vec<u8>,
}

impl Crowd {
    /// Customers of a merchant, who wait so long for an answer and have at most so many connections at once.
    ///
    /// # Errors
    /// The service's URL is none of plain HTTP.
    pub fn of(api: &Api, patience: Duration, most: usize) -> Result<Self> {
        let host = api.url.strip_prefix("http://").context("a plain URL")?.to_owned();
        let head = WireHead::of(&host, &api.key);
        let (room, resting) = (Arc::new(Semaphore::new(most)), Mutex::default());
        let (kept, crowded_out) = (Mutex::default(), AtomicUsize::new(0));
        Ok(Self(Arc::new(Shared {
            api: api.clone(),
            host,
            head,
            patience,
            room,
            most,
            crowded_out,
            resting,
            kept,
        })))
    }

    /// Opens so many connections before they are needed.
    ///
    /// # Errors
    /// The service does not take them.
    pub async fn connect(&self, connections: usize) -> Result<()> {
        for _ in 0..connections {
            let connection = self.0.open().await.context("no connection")?;
            lock(&self.0.resting).push(connection);
        }
        Ok(())
    }

    /// Connections that are open, used or not.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.most - self.0.room.available_permits()
    }

    /// Requests so far that were never sent, because as many connections as there may be waited for answers.
    #[must_use]
    pub fn crowded_out(&self) -> usize {
        self.0.crowded_out.load(Ordering::Relaxed)
    }

    /// A new payment, with a key of its own.
    pub async fn pay(&self) -> Seen {
        let key = Uuid::new_v4();
        self.ask(Some(key), self.0.head.pay(key)).await
    }

    /// To read a path.
    pub async fn read(&self, path: &str) -> Seen {
        self.ask(None, self.0.head.get(path)).await
    }

    /// Puts what was taken or accepted into the history of the world's clients.
    pub fn remember(&self) {
        let Api { key: api_key, history, .. } = &self.0.api;
        for Kept { key, status, location, body } in lock(&self.0.kept).drain(..) {
            let key = key.to_string();
            let location = HeaderValue::from_str(&location).map(|value| (LOCATION, value));
            let headers: HeaderMap = location.into_iter().collect();
            let answer = Answer { status, headers, body };
            history.remember(api_key, "/v1/payments", &key, &payment(&key), Some(&answer));
        }
    }

    async fn ask(&self, key: Option<Uuid>, request: String) -> Seen {
        timeout(self.0.patience, self.0.exchange(key, request.as_bytes()))
            .await
            .ok()
            .flatten()
            .unwrap_or_default()
    }
}

impl Shared {
    async fn exchange(&self, key: Option<Uuid>, request: &[u8]) -> Option<Seen> {
        loop {
            let rested = self.rested();
            let is_new = rested.is_none();
            let mut connection = match rested {
                Some(connection) => connection,
                None => self.open().await?,
            };
            let answer = match connection.wire.exchange(request).await {
                Ok(answer) => answer,
                // it was closed as it rested, which anybody may do at any time (RFC 9112, section 9.3.1)
                Err(WireError::Closed) if !is_new => continue,
                Err(_) => return None,
            };
            let seen = Seen { status: answer.status, says_when: answer.header("retry-after").is_some() };
            if let (Some(key), 201 | 202) = (key, answer.status) {
                let location = answer.header("location").unwrap_or_default().to_owned();
                let (status, body) = (answer.status, answer.body.to_owned());
                lock(&self.kept).push(Kept { key, status, location, body });
            }
            if answer.keeps_connection() {
                lock(&self.resting).push(connection);
            }
            return Some(seen);
        }
    }

    fn rested(&self) -> Option<Connection> {
        let mut resting = lock(&self.resting);
        while let Some(connection) = resting.pop() {
            if !connection.wire.is_closed() {
                return Some(connection);
            }
        }
        None
    }

    /// `None`: nobody takes it, or there are as many as there may be.
    async fn open(&self) -> Option<Connection> {
        let Ok(place) = Arc::clone(&self.room).try_acquire_owned() else {
            self.crowded_out.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        let wire = Wire::to(&self.host).await.ok()?;
        Some(Connection { wire, _place: place })
    }
}

fn lock<T>(shared: &Mutex<T>) -> MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::History;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::{TcpListener, TcpStream};

    const REFUSAL: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nContent-Length: 4\r\n\r\nbusy";
    const LAST: &[u8] = b"HTTP/1.1 201 Created\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";

    async fn crowd(most: usize) -> (Crowd, TcpListener) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let http = reqwest::Client::builder().tls_certs_only([]).build().unwrap();
        let api = Api { url, key: "sk".to_owned(), http, history: History::default() };
        (Crowd::of(&api, Duration::from_secs(10), most).unwrap(), listener)
    }

    async fn answer(stream: &mut TcpStream, answer: &[u8]) {
        let mut request = [0; 1024];
        let _ = stream.read(&mut request).await.unwrap();
        stream.write_all(answer).await.unwrap();
    }

    #[tokio::test]
    async fn a_connection_is_kept_until_the_service_ends_it() {
        let (crowd, listener) = crowd(1).await;
        let service = async {
            let mut stream = listener.accept().await.unwrap().0;
            answer(&mut stream, REFUSAL).await;
            answer(&mut stream, LAST).await;
            // nobody may have noticed yet when the next request is sent
            drop(stream);
            answer(&mut listener.accept().await.unwrap().0, REFUSAL).await;
        };
        let customers = async {
            let told = Seen { status: 503, says_when: true };
            assert_eq!(crowd.pay().await, told);
            assert_eq!(crowd.pay().await, Seen { status: 201, says_when: false });
            assert_eq!(crowd.connections(), 0);
            assert_eq!(crowd.pay().await, told);
        };
        tokio::join!(service, customers);
        crowd.remember();
        assert_eq!(crowd.0.api.history.attempts().len(), 1);
    }

    #[tokio::test]
    async fn who_finds_no_connection_and_whose_connection_breaks_sees_nothing() {
        let (crowd, listener) = crowd(1).await;
        let service = async {
            let mut stream = listener.accept().await.unwrap().0;
            answer(&mut stream, &REFUSAL[..20]).await;
        };
        let customers = async {
            let (first, second) = tokio::join!(crowd.pay(), crowd.pay());
            assert_eq!([first, second], [Seen::default(); 2]);
            assert_eq!(crowd.crowded_out(), 1);
        };
        tokio::join!(service, customers);
    }
}
