//! A sender's connection, as cheap as a sender can be: whole requests made beforehand, written in
//! one go over a connection that is kept, and of the answer only its status and its end are looked
//! at.
//!
//! The load shares the machine with what is measured: what it spends itself is missing there, and
//! makes us look slower than we are.

use std::net::SocketAddr;

use anyhow::{Context, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The largest answer that makes sense.
const ANSWER_MOST: usize = 16 * 1024;

/// A connection that asks one thing at a time.
pub struct Connection {
    stream: TcpStream,
    answer: Vec<u8>,
}

/// The bytes of a POST of `body`.
pub fn post(host: SocketAddr, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request.push_str(&format!("{name}: {value}\r\n"));
    }
    request.push_str("\r\n");
    let mut request = request.into_bytes();
    request.extend_from_slice(body);
    request
}

/// The body in what [`post`] made.
pub fn body(request: &[u8]) -> &[u8] {
    let head = request.windows(4).position(|four| four == b"\r\n\r\n");
    head.map_or(&[], |head| &request[head + 4..])
}

impl Connection {
    /// Connects.
    pub async fn open(host: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(host)
            .await
            .with_context(|| format!("connecting to {host}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            answer: Vec::with_capacity(1024),
        })
    }

    /// Writes `request` and reads its answer to the end.
    ///
    /// # Errors
    /// When that is no 2xx.
    pub async fn ask(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.stream.write_all(request).await?;
        self.answer.clear();
        while !is_whole(&self.answer)? {
            ensure!(self.answer.len() < ANSWER_MOST, "an answer without an end");
            let read = self.stream.read_buf(&mut self.answer).await?;
            ensure!(read > 0, "closed before the answer");
        }
        if !self.answer.starts_with(b"HTTP/1.1 2") {
            bail!("{}", String::from_utf8_lossy(&self.answer));
        }
        Ok(())
    }
}

/// Whether `answer` ends where its length says.
fn is_whole(answer: &[u8]) -> anyhow::Result<bool> {
    let Some(head) = answer.windows(4).position(|four| four == b"\r\n\r\n") else {
        return Ok(false);
    };
    let head = std::str::from_utf8(&answer[..head + 2]).context("the answer's head")?;
    let length: usize = head
        .lines()
        .find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("content-length")
                .then(|| value.trim().parse().ok())?
        })
        .context("an answer without a length")?;
    Ok(answer.len() >= head.len() + 2 + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_at_its_last_byte() {
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\ndate: now\r\n\r\nbody";
        for end in 0..answer.len() {
            assert!(!is_whole(&answer[..end]).expect("a head"), "{end}");
        }
        assert!(is_whole(answer).expect("a head"));
        assert!(is_whole(b"HTTP/1.1 200 OK\r\n\r\n").is_err());
    }
}
