//! What the fault proxy does to connections, as both ends see it.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails where it is wrong"
)]

use std::io::ErrorKind;
use std::time::Duration;

use devstack::fault_proxy::End;
use devstack::{Fault, FaultProxy};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Longer than anything here takes, where an end is waited for.
const LONG: Duration = Duration::from_secs(10);
/// Longer than loopback takes, where silence is waited for.
const SILENCE: Duration = Duration::from_millis(200);

/// A server that says everything back, and a proxy before it.
async fn echo() -> FaultProxy {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    FaultProxy::start(address).await.unwrap()
}

async fn client(proxy: &FaultProxy) -> TcpStream {
    TcpStream::connect(proxy.address()).await.unwrap()
}

async fn says_back(stream: &mut TcpStream, text: &str) {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut back = vec![0; text.len()];
    timeout(LONG, stream.read_exact(&mut back)).await.unwrap().unwrap();
    assert_eq!(back, text.as_bytes());
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    let _ = stream.write_all(b"hello").await;
    timeout(SILENCE, stream.read(&mut [0; 5])).await.is_err()
}

async fn end_of(stream: &mut TcpStream) -> Result<Vec<u8>, (Vec<u8>, ErrorKind)> {
    let mut read = Vec::new();
    match timeout(LONG, stream.read_to_end(&mut read)).await.unwrap() {
        Ok(_) => Ok(read),
        Err(error) => Err((read, error.kind())),
    }
}

#[tokio::test]
async fn whoever_speaks_after_the_other_begins_a_round_trip() {
    let proxy = echo().await;
    let mut stream = client(&proxy).await;
    says_back(&mut stream, "one").await;
    says_back(&mut stream, "two").await;
    assert_eq!(proxy.round_trips(), 2);
}

#[tokio::test]
async fn passes_and_counts() {
    let proxy = echo().await;
    let mut stream = client(&proxy).await;
    says_back(&mut stream, "hello").await;
    stream.shutdown().await.unwrap();
    assert_eq!(end_of(&mut stream).await, Ok(Vec::new()));
    assert_eq!(proxy.connections(), 1);
    assert_eq!(proxy.bytes(), (5, 5));
}

#[tokio::test]
async fn a_black_hole_swallows_and_does_not_give_back() {
    let proxy = echo().await;
    let mut before = client(&proxy).await;
    says_back(&mut before, "hello").await;

    proxy.set(Fault::BlackHole).await.unwrap();
    let mut during = client(&proxy).await;
    assert!(is_silent(&mut before).await);
    assert!(is_silent(&mut during).await);

    proxy.set(Fault::Pass).await.unwrap();
    assert!(is_silent(&mut before).await, "what was lost stays lost");
    let mut after = client(&proxy).await;
    says_back(&mut after, "hello").await;
    assert_eq!(proxy.bytes().0, 10);
}

#[tokio::test]
async fn silence_ends_only_what_is_open() {
    let proxy = echo().await;
    let mut before = client(&proxy).await;
    says_back(&mut before, "hello").await;
    proxy.silence();
    assert!(is_silent(&mut before).await);
    let mut after = client(&proxy).await;
    says_back(&mut after, "hello").await;
}

#[tokio::test]
async fn refuses_and_listens_again() {
    let proxy = echo().await;
    let mut before = client(&proxy).await;
    says_back(&mut before, "hello").await;

    proxy.set(Fault::Refuse).await.unwrap();
    let refused = TcpStream::connect(proxy.address()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
    assert_eq!(end_of(&mut before).await, Err((Vec::new(), ErrorKind::ConnectionReset)));

    proxy.set(Fault::Pass).await.unwrap();
    says_back(&mut client(&proxy).await, "hello").await;
}

#[tokio::test]
async fn resets_before_anything_is_passed() {
    let proxy = echo().await;
    proxy.set(Fault::ResetOnRequest).await.unwrap();
    let mut stream = client(&proxy).await;
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(end_of(&mut stream).await, Err((Vec::new(), ErrorKind::ConnectionReset)));
    assert_eq!(proxy.bytes(), (0, 0));
}

#[tokio::test]
async fn cuts_an_answer_in_three_ways() {
    let proxy = echo().await;

    proxy.set(Fault::CutAnswer { after: 3, end: End::Close }).await.unwrap();
    let mut stream = client(&proxy).await;
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(end_of(&mut stream).await, Ok(b"hel".to_vec()));

    proxy.set(Fault::CutAnswer { after: 0, end: End::Reset }).await.unwrap();
    let mut stream = client(&proxy).await;
    stream.write_all(b"hello").await.unwrap();
    assert_eq!(end_of(&mut stream).await, Err((Vec::new(), ErrorKind::ConnectionReset)));

    proxy.set(Fault::CutAnswer { after: 2, end: End::Hang }).await.unwrap();
    let mut stream = client(&proxy).await;
    stream.write_all(b"hello").await.unwrap();
    let mut two = [0; 2];
    timeout(LONG, stream.read_exact(&mut two)).await.unwrap().unwrap();
    assert_eq!(&two, b"he");
    assert!(is_silent(&mut stream).await);
    assert_eq!(proxy.bytes().0, 15, "all that was asked has reached the server");
}

#[tokio::test]
async fn is_as_slow_as_it_is_told() {
    let proxy = echo().await;
    let latency = Duration::from_millis(50);
    proxy.set(Fault::Slow { latency, bytes_per_second: None }).await.unwrap();
    let mut stream = client(&proxy).await;
    let began = Instant::now();
    says_back(&mut stream, "hello").await;
    assert!(began.elapsed() >= 2 * latency);

    proxy.set(Fault::Slow { latency: Duration::ZERO, bytes_per_second: Some(20) }).await.unwrap();
    let began = Instant::now();
    says_back(&mut stream, "hello").await;
    assert!(began.elapsed() >= Duration::from_millis(200), "four pauses of a twentieth of a second");
}

#[tokio::test]
async fn an_order_loses_nothing_that_passes() {
    let proxy = echo().await;
    let mut stream = client(&proxy).await;
    let text = "0123456789".repeat(20_000);
    let (mut read, mut write) = stream.split();
    let sent = async {
        write.write_all(text.as_bytes()).await.unwrap();
    };
    let turned = async {
        for _ in 0..20 {
            proxy
                .set(Fault::Slow { latency: Duration::from_millis(1), bytes_per_second: None })
                .await
                .unwrap();
            proxy.set(Fault::Pass).await.unwrap();
        }
    };
    let mut back = vec![0; text.len()];
    let (_, (), read) = tokio::join!(sent, turned, timeout(LONG, read.read_exact(&mut back)));
    read.unwrap().unwrap();
    assert!(back == text.as_bytes());
}
