//! What a sync would do, and who is there already, with a digest to confirm it by. Writes nothing to
//! Kisi.

use std::collections::BTreeMap;

use contracts::integration::v1 as api;
use kisi_client::{HttpKisi, Lane};
use sha2::{Digest, Sha256};
use tonic::Status;

use super::{Setup, estimate, previewed::Previewed};
use crate::observe::Observed;
use crate::reconcile::View;
use crate::refusal;
use crate::rights::{self, People, Scope};
use crate::store::{integrations, previews};

/// Between two sends, in units of 1 ÷ rate: the middle of what the pacer keeps.
const SPACING: f64 = 1.075;

/// A plan as it is now, and what it was made from.
pub(super) struct Planned {
    pub view: View,
    pub observed: Observed,
    pub plan: access_domain::plan::Plan,
}

impl Setup {
    pub async fn preview(
        &self,
        gym: &str,
        associations: Option<&[api::Association]>,
    ) -> Result<api::Preview, Status> {
        let row = self.enabled(gym).await?;
        let held = row.associations().map_err(refusal::store)?;
        let set = match associations {
            Some(set) => Self::parse(set)?,
            None => held.clone(),
        };
        let kisi = self.kisi(&row)?;
        if associations.is_some() {
            self.require_groups(&kisi, &set).await?;
        }
        let people = People::ask(&self.shared, gym).await;
        let people = people.map_err(refusal::rights)?;
        let groups = set.values().chain(held.values()).copied().collect();
        let mut planned = self.plan_of(row, &kisi, &set).await?;
        // What was listed for the plan is not listed again.
        let lists = std::mem::take(&mut planned.observed.lists);
        let (shared, row) = (&self.shared, &planned.view.integration);
        let scope = Scope {
            groups: &groups,
            lists: &lists,
            people: &people,
        };
        let reading = rights::refresh(shared, &kisi, Lane::SetUp, row, &scope).await;
        let reading = reading.map_err(refusal::rights)?;
        let shown = Previewed::new(&planned, &set, &reading, &people);
        let shown = shown.map_err(refusal::store)?;
        let requests = estimate::requests(&planned, &shown, &set, shared.events_url.is_some());
        let seconds = (requests as f64 * SPACING / shared.pacers.rate()).ceil();
        let mut preview = shown.into_preview().map_err(refusal::store)?;
        preview.requests = requests;
        preview.seconds = seconds as i64;
        let plan = planned.plan.digest();
        preview.digest = digest(gym, &plan, &preview)?;
        self.keep(gym, &preview.digest, plan, &set).await?;
        Ok(preview)
    }

    /// What a pass would find with these associations, by the same path.
    pub(super) async fn plan_of(
        &self,
        row: integrations::Model,
        kisi: &HttpKisi,
        set: &BTreeMap<String, i64>,
    ) -> Result<Planned, Status> {
        let now = self.shared.now();
        let mut view = View::read(&self.shared, row)
            .await
            .map_err(refusal::store)?;
        view.keeps_lists = true;
        let rows = view.rows.iter().map(|row| row.group_id);
        let groups = set.values().copied().chain(rows).collect();
        let mut observed = view
            .observe_groups(kisi, Lane::SetUp, &groups, now)
            .await
            .map_err(refusal::reconcile)?;
        // Nobody confirms what leaves a group out. One that is too long is in the plan with what is ours.
        let too_long = observed.too_long();
        let mut failed = observed.failed.iter();
        if let Some(one) = failed.position(|(group, _)| !too_long.contains(group)) {
            return Err(refusal::kisi(observed.failed.swap_remove(one).1));
        }
        let plan = view
            .plan(&observed, set.clone(), now)
            .map_err(refusal::store)?;
        Ok(Planned {
            view,
            observed,
            plan,
        })
    }

    async fn keep(
        &self,
        gym: &str,
        digest: &str,
        plan_digest: String,
        set: &BTreeMap<String, i64>,
    ) -> Result<(), Status> {
        let row = previews::Model {
            digest: digest.to_owned(),
            gym_id: gym.to_owned(),
            plan_digest,
            shown_at: self.shared.now(),
            associations: stored(set)?,
        };
        previews::put(&self.shared.db, row)
            .await
            .map_err(refusal::store)
    }

    /// The plan that staff confirm by the digest of what they were shown of these associations.
    pub(super) async fn confirmed(
        &self,
        gym: &str,
        digest: Option<String>,
        set: &BTreeMap<String, i64>,
    ) -> Result<Option<String>, Status> {
        let Some(digest) = digest.filter(|digest| !digest.is_empty()) else {
            return Ok(None);
        };
        let preview = previews::find(&self.shared.db, gym, &digest)
            .await
            .map_err(refusal::store)?;
        let preview = preview.ok_or_else(|| {
            Status::aborted("digest: no such preview was shown in the last two days; preview again")
        })?;
        if preview.associations != stored(set)? {
            return Err(Status::aborted(
                "digest: that preview was of other associations than these; preview once more",
            ));
        }
        Ok(Some(preview.plan_digest))
    }
}

/// As `integrations.associations` keeps them.
pub(super) fn stored(set: &BTreeMap<String, i64>) -> Result<String, Status> {
    serde_json::to_string(set).map_err(|error| refusal::internal(&error))
}

/// Of everything that is shown but the instant at which the rights of others were read.
fn digest(gym: &str, plan: &str, preview: &api::Preview) -> Result<String, Status> {
    let mut shown = preview.clone();
    if let Some(rights) = &mut shown.other_rights {
        rights.read_at = None;
    }
    let shown = serde_json::to_string(&shown).map_err(|error| refusal::internal(&error))?;
    let text = format!("{gym}\n{plan}\n{shown}");
    Ok(hex::encode(Sha256::digest(text.as_bytes())))
}
