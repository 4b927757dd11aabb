//! Senders that are slow, many or large: they hold nothing for long, and keep nobody out.

use std::time::{Duration, Instant};

use testkit::eventually;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{DEADLINE, Harness, SECRET, failed_invoice};

const HEAD: &str =
    "POST /webhooks/stripe/main HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n";

async fn connect(harness: &Harness) -> TcpStream {
    TcpStream::connect(harness.address)
        .await
        .expect("a connection")
}

/// Everything the service says until it closes the connection.
async fn until_closed(connection: &mut TcpStream) -> String {
    let mut said = Vec::new();
    let closed = tokio::time::timeout(DEADLINE, connection.read_to_end(&mut said)).await;
    // A reset is a close too: there were bytes that nobody read.
    let _ = closed.expect("closed in time");
    String::from_utf8_lossy(&said).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_comes_byte_by_byte_is_cut_off() {
    let harness = Harness::start_with(|config| {
        config.head_timeout = Duration::from_millis(400);
    })
    .await;
    let connection = connect(&harness).await;
    let (mut read, mut write) = connection.into_split();
    let dripping = tokio::spawn(async move {
        for byte in HEAD.bytes().cycle() {
            if write.write_all(&[byte]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut said = Vec::new();
    let closed = tokio::time::timeout(DEADLINE, read.read_to_end(&mut said)).await;
    let _ = closed.expect("closed while bytes still came");
    assert!(!String::from_utf8_lossy(&said).contains(" 200"));
    let ended = tokio::time::timeout(DEADLINE, dripping).await;
    ended.expect("in time").expect("no panic");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_sends_nothing_is_closed_new_or_used() {
    let harness = Harness::start_with(|config| {
        config.head_timeout = Duration::from_millis(300);
    })
    .await;
    assert_eq!(until_closed(&mut connect(&harness).await).await, "");
    let mut used = connect(&harness).await;
    used.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        .await
        .expect("written");
    let said = until_closed(&mut used).await;
    assert!(said.starts_with("HTTP/1.1 404"), "{said}");
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bodies_that_come_byte_by_byte_are_cut_off_and_keep_nobody_out() {
    let harness = Harness::start_with(|config| {
        config.read_timeout = Duration::from_secs(2);
        config.max_in_flight = 1;
    })
    .await;
    let mut slow = Vec::new();
    for _ in 0..20 {
        let mut connection = connect(&harness).await;
        let head = format!("{HEAD}expect: 100-continue\r\ncontent-length: 100000\r\n\r\n");
        connection
            .write_all(head.as_bytes())
            .await
            .expect("written");
        // Its body is being read when this comes.
        let mut go_on = [0; 25];
        connection.read_exact(&mut go_on).await.expect("an answer");
        assert!(go_on.starts_with(b"HTTP/1.1 100"));
        let (read, mut write) = connection.into_split();
        tokio::spawn(async move {
            while write.write_all(b"x").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
        slow.push(read);
    }
    // One place in flight, twenty bodies on their way: a good post still finds it.
    let started = Instant::now();
    let answer = harness
        .post_signed(SECRET, &failed_invoice("evt_good"))
        .await;
    assert_eq!(answer.status(), 200);
    eprintln!("a good post among slow ones took {:?}", started.elapsed());
    for mut read in slow {
        let mut said = Vec::new();
        let closed = tokio::time::timeout(DEADLINE, read.read_to_end(&mut said)).await;
        let _ = closed.expect("cut off while bytes still came");
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(said.starts_with("HTTP/1.1 408"), "{said}");
    }
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_says_it_is_too_large_is_refused_unread() {
    let harness = Harness::start().await;
    let mut connection = connect(&harness).await;
    let head = format!("{HEAD}content-length: 1048577\r\n\r\n");
    connection
        .write_all(head.as_bytes())
        .await
        .expect("written");
    let said = until_closed(&mut connection).await;
    assert!(said.starts_with("HTTP/1.1 413"), "{said}");
    // One that does not say so beforehand is cut off where it is.
    let mut connection = connect(&harness).await;
    let head = format!("{HEAD}transfer-encoding: chunked\r\n\r\n");
    connection
        .write_all(head.as_bytes())
        .await
        .expect("written");
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    for _ in 0..17 {
        if connection.write_all(chunk.as_bytes()).await.is_err() {
            break;
        }
    }
    let said = until_closed(&mut connection).await;
    assert!(
        said.is_empty() || said.starts_with("HTTP/1.1 413"),
        "{said}"
    );
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_bodies_on_their_way_do_not_take_more_than_their_share_of_memory() {
    let harness = Harness::start_with(|config| config.max_body_memory_mib = 1).await;
    let mut large = almost_a_mebibyte(&harness).await;
    let body = failed_invoice("evt_1");
    eventually("there is no room", DEADLINE, async || {
        // While they race for the last room it may be the large one that is sent away.
        if large.try_read(&mut [0]).is_ok() {
            large = almost_a_mebibyte(&harness).await;
        }
        let answer = harness.post_signed(SECRET, &body).await;
        answer.status() == 503 && answer.headers().contains_key("retry-after")
    })
    .await;
    drop(large);
    eventually("there is room again", DEADLINE, async || {
        harness.post_signed(SECRET, &body).await.status() == 200
    })
    .await;
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sender_that_does_not_read_its_answers_is_cut_off() {
    let harness = Harness::start_with(|config| {
        config.max_connection_age = Duration::from_millis(500);
    })
    .await;
    let mut connection = connect(&harness).await;
    let requests = "GET / HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1_000);
    let cut = async { while connection.write_all(requests.as_bytes()).await.is_ok() {} };
    // It keeps asking, so it is never idle; and when the way back is full, it is stuck.
    let ended = tokio::time::timeout(DEADLINE, cut).await;
    ended.expect("cut off");
    let answer = harness.post_signed(SECRET, &failed_invoice("evt_1")).await;
    assert_eq!(answer.status(), 200);
    harness.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_past_the_bound_wait_until_one_ends() {
    let head_timeout = Duration::from_secs(1);
    let harness = Harness::start_with(|config| {
        config.head_timeout = head_timeout;
        config.max_connections = 2;
    })
    .await;
    let started = Instant::now();
    let _idle = [connect(&harness).await, connect(&harness).await];
    let answer = harness.post_signed(SECRET, &failed_invoice("evt_1")).await;
    assert_eq!(answer.status(), 200);
    assert!(
        started.elapsed() >= head_timeout,
        "it was let in beside them"
    );
    harness.stop().await;
}

async fn almost_a_mebibyte(harness: &Harness) -> TcpStream {
    let mut large = connect(harness).await;
    let head = format!("{HEAD}content-length: 1048576\r\n\r\n");
    large.write_all(head.as_bytes()).await.expect("written");
    // Or it is sent away half-way.
    let _ = large.write_all(&vec![b'x'; 1_048_575]).await;
    large
}
