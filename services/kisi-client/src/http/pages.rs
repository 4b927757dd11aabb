//! A list, page by page, to its end or to the offset that Kisi allows.

use serde::de::DeserializeOwned;

use super::HttpKisi;
use super::request::Request;
use crate::error::KisiError;
use crate::listing::{Collector, Listing};
use crate::model::Identified;
use crate::pacing::Lane;

/// The most rows a page may have, by route. Kisi's default is as few as 10, so it is always sent.
pub(super) const PAGE: u64 = 250;
/// The same for users, where the maximum is lower.
pub(super) const USERS_PAGE: u64 = 100;
/// The largest offset that Kisi publishes.
const LARGEST_OFFSET: u64 = 20_000;

impl HttpKisi {
    /// Reads `request` with `limit` and `offset` until the total is reached or a page is empty.
    pub(super) async fn list<T>(
        &self,
        lane: Lane,
        limit: u64,
        request: impl Fn() -> Request,
    ) -> Result<Listing<T>, KisiError>
    where
        T: DeserializeOwned + Identified + Send,
    {
        self.list_up_to(lane, limit, LARGEST_OFFSET + limit, request)
            .await
    }

    /// The same, given up after the first page when the list is longer than `readable`.
    pub(super) async fn list_up_to<T>(
        &self,
        lane: Lane,
        limit: u64,
        readable: u64,
        request: impl Fn() -> Request,
    ) -> Result<Listing<T>, KisiError>
    where
        T: DeserializeOwned + Identified + Send,
    {
        let mut rows = Collector::new();
        let mut offset = 0;
        loop {
            let page = request().query("limit", limit).query("offset", offset);
            let route = page.route;
            let answer = self.exchange(lane.into(), &page).await?;
            let items: Vec<T> = answer.read()?;
            let total = answer.total()?;
            // By what came, not by what was asked for: a short page must not skip rows.
            let came = items.len() as u64;
            offset += came;
            rows.add(items, total);
            let ended = match total {
                Some(total) => offset >= total,
                None => came < limit,
            };
            if came == 0 || ended {
                return Ok(rows.finish());
            }
            let readable = readable.min(LARGEST_OFFSET + limit);
            let total = total.unwrap_or(offset + 1);
            if offset > LARGEST_OFFSET || total > readable {
                return Err(KisiError::BeyondOffsetLimit {
                    route,
                    total,
                    readable,
                });
            }
        }
    }
}
