//! Regular users who have not signed up with Kisi yet: whether they have by now.
//!
//! No published field says so for sure; what is taken for it is in
//! [`kisi_client::model::User::has_signed_up`]. A gym whose users are managed costs no request.

use std::collections::BTreeSet;

use kisi_client::{HttpKisi, KisiRead, Lane};

use super::{Pass, ReconcileError};
use crate::store::members;

/// Users of one request.
const AT_ONCE: usize = 100;
/// Users asked for by their own id in one pass, where Kisi's list left them out.
const ONE_BY_ONE: usize = 20;

impl Pass {
    /// Who has signed up is told so with this pass.
    pub(super) async fn look_for_sign_ups(
        &mut self,
        kisi: &HttpKisi,
    ) -> Result<(), ReconcileError> {
        let waiting = members::list_to_sign_up(&self.shared.db, &self.gym).await?;
        let mut signed_up = Vec::new();
        let mut left_out = Vec::new();
        for ids in waiting.chunks(AT_ONCE) {
            self.report.requests += 1;
            let users = kisi.list_users_by_id(Lane::Reconcile, ids).await?;
            let listed: BTreeSet<i64> = users.iter().map(|user| user.id).collect();
            left_out.extend(ids.iter().filter(|id| !listed.contains(id)));
            signed_up.extend(users.iter().filter(|u| u.has_signed_up()).map(|u| u.id));
        }
        for id in left_out.into_iter().take(ONE_BY_ONE) {
            self.report.requests += 1;
            let user = kisi.find_user(Lane::Reconcile, id).await?;
            signed_up.extend(user.filter(|u| u.has_signed_up()).map(|u| u.id));
        }
        Ok(members::signed_up(&self.shared.db, &self.gym, &signed_up).await?)
    }
}
