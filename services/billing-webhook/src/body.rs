//! Reading a body from a stranger: bounded in size, in time, and in the memory of all together.
//!
//! A body that is still on its way takes none of the places of posts in flight: a thousand senders
//! of one byte a second keep nobody else out.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody};
use http_body_util::BodyExt;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

/// The largest body; providers' are a hundredth of it.
pub const MAX_BODY: usize = 1024 * 1024;

/// Memory is counted in pieces of so many bytes.
const PIECE: usize = 4 * 1024;

/// Why a body was not read to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unread {
    TooLarge,
    TooSlow,
    /// The sender went away.
    BrokenOff,
    /// All bodies together have no more room.
    NoRoom,
    /// The process stops and the sender took too long for that.
    Stopping,
}

/// What all bodies share.
#[derive(Debug)]
pub struct Bodies {
    room: Arc<Semaphore>,
    within: Duration,
    stopping: CancellationToken,
    within_after_stop: Duration,
}

/// A whole body, and its claim on the memory until it is dropped.
#[derive(Debug)]
pub struct Whole {
    pub bytes: Bytes,
    _room: Option<OwnedSemaphorePermit>,
}

impl Bodies {
    /// Room for `mib` MiB of bodies at once. A body must arrive `within` this time, and after
    /// `stopping` within the shorter one.
    pub fn new(
        mib: usize,
        within: Duration,
        stopping: CancellationToken,
        within_after_stop: Duration,
    ) -> Self {
        let pieces = (mib * 1024 * 1024 / PIECE).min(Semaphore::MAX_PERMITS);
        Self {
            room: Arc::new(Semaphore::new(pieces)),
            within,
            stopping,
            within_after_stop,
        }
    }

    /// Reads `body` to its end.
    pub async fn read(&self, body: Body) -> Result<Whole, Unread> {
        if body.size_hint().lower() > MAX_BODY as u64 {
            return Err(Unread::TooLarge);
        }
        let stopped = async {
            self.stopping.cancelled().await;
            tokio::time::sleep(self.within_after_stop).await;
        };
        tokio::select! {
            biased;
            read = self.collect(body) => read,
            () = tokio::time::sleep(self.within) => Err(Unread::TooSlow),
            () = stopped => Err(Unread::Stopping),
        }
    }

    async fn collect(&self, mut body: Body) -> Result<Whole, Unread> {
        let mut room: Option<OwnedSemaphorePermit> = None;
        // Most bodies come in one frame, which is then not copied.
        let mut first = Bytes::new();
        let mut all = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.map_err(|_| Unread::BrokenOff)?.into_data() else {
                continue;
            };
            let size = first.len().max(all.len()) + data.len();
            if size > MAX_BODY {
                return Err(Unread::TooLarge);
            }
            self.claim(&mut room, size.div_ceil(PIECE))?;
            if first.is_empty() {
                first = data;
            } else {
                if all.is_empty() {
                    all.extend_from_slice(&first);
                }
                all.extend_from_slice(&data);
            }
        }
        let bytes = if all.is_empty() { first } else { all.into() };
        Ok(Whole { bytes, _room: room })
    }

    /// Grows `room` to so many pieces.
    fn claim(&self, room: &mut Option<OwnedSemaphorePermit>, pieces: usize) -> Result<(), Unread> {
        let held = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(pieces.saturating_sub(held)).map_err(|_| Unread::TooLarge)?;
        if more == 0 {
            return Ok(());
        }
        let more = Arc::clone(&self.room)
            .try_acquire_many_owned(more)
            .map_err(|_| Unread::NoRoom)?;
        match room {
            Some(room) => room.merge(more),
            None => *room = Some(more),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies() -> Bodies {
        let long = Duration::from_secs(60);
        Bodies::new(1, long, CancellationToken::new(), long)
    }

    fn frames(sizes: &[usize]) -> Body {
        let frames: Vec<Result<Bytes, std::io::Error>> = sizes
            .iter()
            .map(|size| Ok(Bytes::from(vec![b'x'; *size])))
            .collect();
        Body::from_stream(futures_util::stream::iter(frames))
    }

    #[tokio::test]
    async fn a_body_is_whole_however_it_is_cut() {
        let bodies = bodies();
        for sizes in [&[][..], &[5], &[1, 1, 1], &[0, 4_000, 0, 200, 9_000]] {
            let whole = bodies.read(frames(sizes)).await.expect("whole");
            assert_eq!(whole.bytes.len(), sizes.iter().sum::<usize>(), "{sizes:?}");
        }
        let full = bodies.read(frames(&[MAX_BODY / 2, MAX_BODY / 2])).await;
        assert_eq!(full.expect("just fits").bytes.len(), MAX_BODY);
        let over = bodies.read(frames(&[MAX_BODY, 1])).await;
        assert_eq!(over.map(|_| ()), Err(Unread::TooLarge));
    }

    #[tokio::test]
    async fn all_bodies_together_have_a_bound_and_give_their_room_back() {
        let bodies = bodies();
        let large = bodies.read(frames(&[MAX_BODY - PIECE])).await;
        let large = large.expect("room");
        let small = bodies.read(frames(&[PIECE])).await.expect("the last room");
        let third = bodies.read(frames(&[1])).await;
        assert_eq!(third.map(|_| ()), Err(Unread::NoRoom));
        drop(small);
        bodies.read(frames(&[1])).await.expect("room again");
        drop(large);
    }
}
