use std::time::Duration;

use testkit::{NatsServer, TestDatabase, TokenIssuer, eventually, free_port};

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
