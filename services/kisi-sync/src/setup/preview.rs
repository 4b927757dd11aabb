//! What a sync would do, as numbers and a digest to confirm it by. Writes nothing to Kisi.

use std::collections::BTreeSet;

use access_domain::plan::Step;
use contracts::integration::v1 as api;
use kisi_client::Lane;
use tonic::Status;

use super::Setup;
use super::show::{conflicts, plans_without_group};
use crate::reconcile::View;
use crate::refusal;

/// Requests that a member who is new at Kisi takes: find, make, grant.
const REQUESTS_OF_A_NEW_MEMBER: u64 = 3;

impl Setup {
    pub async fn preview(
        &self,
        gym: &str,
        associations: Option<&[api::Association]>,
    ) -> Result<api::Preview, Status> {
        let row = self.enabled(gym).await?;
        let set = match associations {
            Some(set) => Self::parse(set)?,
            None => row.associations().map_err(refusal::store)?,
        };
        let kisi = self.kisi(&row)?;
        if associations.is_some() {
            self.require_groups(&kisi, &set).await?;
        }
        let now = self.shared.now();
        let view = View::read(&self.shared, row)
            .await
            .map_err(refusal::store)?;
        let mut groups: BTreeSet<i64> = set.values().copied().collect();
        groups.extend(view.rows.iter().map(|row| row.group_id));
        let observed = view
            .observe_groups(&kisi, Lane::SetUp, &groups, now)
            .await
            .map_err(refusal::reconcile)?;
        let plan = view
            .plan(&observed, set.clone(), now)
            .map_err(refusal::store)?;
        let mut grants = 0_u64;
        let mut revokes = 0_u64;
        let mut requests = 0_u64;
        for step in &plan.steps {
            match step {
                Step::Grant { member, .. } => {
                    grants += 1;
                    let known = view.members.iter().any(|held| {
                        held.member_id == member.as_str() && held.kisi_user_id.is_some()
                    });
                    requests += if known { 1 } else { REQUESTS_OF_A_NEW_MEMBER };
                }
                Step::Revoke { .. } => {
                    revokes += 1;
                    requests += 1;
                }
                step if step.writes() => requests += 1,
                _ => {}
            }
        }
        let seconds = (requests as f64 / self.shared.pacers.rate()).ceil() as i64;
        Ok(api::Preview {
            digest: plan.digest(),
            grants: signed(grants),
            revokes: signed(revokes),
            unmanaged: signed(observed.unmanaged.len() as u64),
            conflicts: conflicts(&view.members),
            plans_without_group: plans_without_group(&view.members, &set)
                .map_err(refusal::store)?,
            seconds,
        })
    }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
