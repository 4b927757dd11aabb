use std::io::{Read, Write};
use std::time::Duration;

use testkit::{NatsServer, Postgres, TestDatabase, TokenIssuer, eventually, free_port};

#[tokio::test]
async fn a_nats_server_restarts_on_its_own_port_after_a_kill() {
    let mut nats = NatsServer::start().await.unwrap();
    let (address, first) = (nats.address(), nats.pid());
    nats.kill().await.unwrap();
    assert!(std::net::TcpStream::connect(&address).is_err());
    nats.restart().await.unwrap();
    assert_eq!(nats.address(), address);
    assert_ne!(nats.pid(), first);
    assert!(std::net::TcpStream::connect(&address).is_ok());
}

#[tokio::test]
async fn dropping_a_nats_server_frees_its_port() {
    let nats = NatsServer::start().await.unwrap();
    let address = nats.address();
    drop(nats);
    eventually("the port is closed", Duration::from_secs(5), async || {
        std::net::TcpStream::connect(&address).is_err()
    })
    .await;
}

#[tokio::test]
async fn each_test_gets_a_database_of_its_own_on_one_server() {
    let (one, two) = (
        TestDatabase::create().await.unwrap(),
        TestDatabase::create().await.unwrap(),
    );
    let server_of = |url: &str| url.rsplit_once('/').map(|(server, _)| server.to_owned());
    assert_eq!(server_of(one.url()), server_of(two.url()));
    assert_ne!(one.url(), two.url());
}

#[tokio::test]
async fn a_postgresql_server_restarts_on_its_own_port_and_data_after_a_crash() {
    let mut server = Postgres::start().await.unwrap();
    let database = server.create_database().await.unwrap();
    assert!(is_there(database.url()));
    server.kill().await.unwrap();
    assert!(!is_there(database.url()));
    server.restart().await.unwrap();
    assert!(is_there(database.url()));
    assert!(!is_there(&format!("{}_not", database.url())));
}

/// Whether a server lets the user `postgres` into this database.
fn is_there(url: &str) -> bool {
    let (address, name) = url["postgres://postgres@".len()..].split_once('/').unwrap();
    let Ok(mut server) = std::net::TcpStream::connect(address) else {
        return false;
    };
    let mut message = 196_608_u32.to_be_bytes().to_vec();
    message.extend(format!("user\0postgres\0database\0{name}\0\0").bytes());
    let length = u32::try_from(message.len() + 4).unwrap().to_be_bytes();
    server.write_all(&[&length[..], &message].concat()).unwrap();
    // Nine bytes let the user in; then come the server's settings, or an error where there is no
    // such database.
    let mut answer = [0; 10];
    server.read_exact(&mut answer).unwrap();
    (answer[0], answer[9]) == (b'R', b'S')
}

#[test]
fn two_issuers_do_not_share_a_key() {
    let (one, two) = (TokenIssuer::new().unwrap(), TokenIssuer::new().unwrap());
    assert_ne!(one.jwk().unwrap()["x"], two.jwk().unwrap()["x"]);
    assert!(one.jwks_path().is_file());
}

#[test]
fn ports_are_not_handed_out_twice() {
    let ports: std::collections::HashSet<u16> = (0..50).map(|_| free_port()).collect();
    assert_eq!(ports.len(), 50);
}
