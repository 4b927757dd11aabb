//! The integration as pages show it.

use std::collections::{BTreeMap, BTreeSet};

use contracts::integration::v1 as api;
use contracts::wire;
use sea_orm::DbErr;
use tonic::Status;

use super::Setup;
use super::key::unset;
use crate::store::key_checks::{self, OtherIntegration};
use crate::store::{instant, integrations, members};
use crate::{integration_state as state, refusal};

impl Setup {
    /// The integration as pages show it; `disabled` where there is none.
    pub async fn show(&self, gym: &str) -> Result<api::Integration, Status> {
        let found = integrations::find(&self.shared.db, gym)
            .await
            .map_err(refusal::store)?;
        let row = found.unwrap_or_else(|| unset(gym));
        let check = key_checks::find(&self.shared.db, gym)
            .await
            .map_err(refusal::store)?
            .filter(|_| row.enabled);
        let held = members::list(&self.shared.db, gym)
            .await
            .map_err(refusal::store)?;
        let other_rights = match row.enabled {
            true => self.other_rights(&row).await.map_err(refusal::store)?,
            false => None,
        };
        let shown = || -> Result<api::Integration, DbErr> {
            let set = row.associations()?;
            Ok(api::Integration {
                gym_id: gym.to_owned(),
                state: row.state().to_owned(),
                key: Some(key_health(&row, check.as_ref())?),
                place_id: row.place_id,
                associations: state::associations(&row)?,
                plans_without_group: plans_without_group(&held, &set)?,
                conflicts: conflicts(&held),
                attention: state::attention(&row)?,
                policies: Some(state::policies(&row)),
                unmanaged: row.unmanaged,
                last_reconciled_at: row
                    .last_reconciled_at
                    .map(|at| wire::timestamp(instant(at))),
                next_reconcile_at: row.synced.then(|| {
                    let next =
                        crate::schedule::next(self.shared.now(), self.shared.reconcile_every);
                    wire::timestamp(instant(next))
                }),
                groups: state::groups(&row)?,
                version: row.version,
                other_rights,
                sign_ups_needed: held.iter().filter(|m| m.sign_up_needed).count() as i64,
            })
        };
        shown().map_err(refusal::store)
    }
}

fn key_health(
    row: &integrations::Model,
    check: Option<&key_checks::Model>,
) -> Result<api::KeyHealth, DbErr> {
    let unchecked = key_checks::Model::unchecked(&row.gym_id);
    let check = check.unwrap_or(&unchecked);
    let others = check.integrations()?;
    let changes = check.changes()?;
    Ok(api::KeyHealth {
        status: row.key_status.clone(),
        organization_id: row.organization_id,
        organization_name: row.organization_name.clone(),
        owner_user_id: row.owner_user_id,
        checked_at: row.key_checked_at.map(|at| wire::timestamp(instant(at))),
        advice: advice(row, check, &others),
        owner_role: check.owner_role.clone(),
        owner_is_owner: row.enabled && row.owner_is_owner,
        dedicated_account: check.dedicated,
        other_integrations: others
            .into_iter()
            .map(|other| api::OtherIntegration {
                id: other.id,
                r#type: other.kind,
                enabled: other.enabled,
            })
            .collect(),
        changes: changes
            .into_iter()
            .map(|change| api::KeyChange {
                what: change.what,
                from: change.from,
                to: change.to,
                at: Some(wire::timestamp(instant(change.at))),
            })
            .collect(),
    })
}

/// What would make the key last longer, and its work easier to tell apart.
fn advice(
    row: &integrations::Model,
    check: &key_checks::Model,
    others: &[OtherIntegration],
) -> Vec<String> {
    let mut advice = Vec::new();
    if !row.enabled || row.key_status != "ok" {
        return advice;
    }
    if !check.dedicated {
        advice.push(
            "Use a Kisi account of its own for this key: it has its own rate limit, and what it grants can be told apart from what people grant by hand."
                .to_owned(),
        );
    }
    if !row.owner_is_owner {
        advice.push(
            "The key dies when the account that made it loses its administrator rights.".to_owned(),
        );
    }
    if others.iter().any(|other| other.enabled) {
        advice.push(
            "Other integrations work in this Kisi organization: see that they leave the groups of these plans alone."
                .to_owned(),
        );
    }
    advice
}

pub(super) fn plans_without_group(
    members: &[members::Model],
    set: &BTreeMap<String, i64>,
) -> Result<Vec<api::PlanWithoutGroup>, DbErr> {
    let mut heads: BTreeMap<String, i64> = BTreeMap::new();
    for member in members {
        let plans: BTreeSet<String> = member.plans()?.into_iter().map(|p| p.plan_id).collect();
        for plan in plans {
            if !set.contains_key(&plan) {
                *heads.entry(plan).or_default() += 1;
            }
        }
    }
    Ok(heads
        .into_iter()
        .map(|(plan_id, members)| api::PlanWithoutGroup { plan_id, members })
        .collect())
}

pub(super) fn conflicts(members: &[members::Model]) -> Vec<api::Conflict> {
    members
        .iter()
        .filter_map(|member| {
            let held = member.conflict.as_deref()?;
            let (what, twin) = held
                .split_once(':')
                .map_or((held, None), |(what, twin)| (what, Some(twin)));
            let mut member_ids = vec![member.member_id.clone()];
            member_ids.extend(twin.map(str::to_owned));
            Some(conflict(what, member_ids))
        })
        .collect()
}

/// Who is who at Kisi nobody but the gym can say.
pub(super) fn conflict(what: &str, member_ids: Vec<String>) -> api::Conflict {
    api::Conflict {
        member_ids,
        what: what.to_owned(),
        who: "staff".to_owned(),
    }
}
