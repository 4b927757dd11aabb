//! A body that is looked at once more when its bytes are about to be written.
//!
//! Between the turn and the socket lie the pool, a channel and whatever else the machine does
//! meanwhile; a process held still there would send, when it goes on, what others have long
//! overtaken. hyper asks for the body in the same poll in which it writes head and body, so what is
//! answered here is answered right before the write. On an error the connection is dropped and
//! nothing of the request has left.

use std::error::Error;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use crate::pacing::Condition;

/// The request was no longer to be sent when its moment came.
#[derive(Debug, thiserror::Error)]
#[error("it was not to be sent any more")]
pub(super) struct Withheld;

impl Withheld {
    /// Whether this is why a request failed.
    pub(super) fn is_behind(error: &reqwest::Error) -> bool {
        let mut cause = error.source();
        while let Some(error) = cause {
            if error.is::<Self>() {
                return true;
            }
            cause = error.source();
        }
        false
    }
}

/// The bytes of a request, as long as the condition holds.
pub(super) struct OnlyWhile {
    condition: Condition,
    rest: Rest,
}

enum Rest {
    /// A request without a body.
    None,
    Data(Bytes),
    Taken,
}

impl OnlyWhile {
    pub(super) fn new(condition: Condition, body: Option<String>) -> Self {
        let rest = match body {
            Some(body) if !body.is_empty() => Rest::Data(body.into()),
            _ => Rest::None,
        };
        Self { condition, rest }
    }
}

impl Body for OnlyWhile {
    type Data = Bytes;
    type Error = Withheld;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Withheld>>> {
        if !self.condition.holds() {
            return Poll::Ready(Some(Err(Withheld)));
        }
        let frame = match std::mem::replace(&mut self.rest, Rest::Taken) {
            Rest::Data(bytes) => Some(Ok(Frame::data(bytes))),
            Rest::None | Rest::Taken => None,
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self.rest {
            // All that is asked before such a request leaves. What has not ended is polled.
            Rest::None => self.condition.holds(),
            Rest::Data(_) => false,
            Rest::Taken => true,
        }
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match &self.rest {
            Rest::Data(bytes) => bytes.len() as u64,
            // Of zero bytes none would be asked for.
            Rest::None if !self.condition.holds() => 1,
            Rest::None | Rest::Taken => 0,
        })
    }
}
