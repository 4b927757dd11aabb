//! Who else opens these doors: the summary, and the list behind it.

use std::collections::BTreeSet;

use contracts::integration::v1 as api;
use contracts::wire;
use kisi_client::Lane;
use sea_orm::DbErr;
use tonic::Status;

use super::Setup;
use crate::observe::Lists;
use crate::refusal;
use crate::rights::{self, People, Scope};
use crate::store::other_rights::{self, GUEST, LINK, Model, TEAM, readings};
use crate::store::{instant, integrations};

/// Members that a summary names.
const NAMED: usize = 100;
const USUAL: u64 = 100;
const MOST: u64 = 1_000;

impl Setup {
    /// The summary for the gym's associations; None before they were first read.
    pub(super) async fn other_rights(
        &self,
        row: &integrations::Model,
    ) -> Result<Option<api::OtherRights>, DbErr> {
        let Some(reading) = readings::find(&self.shared.db, &row.gym_id).await? else {
            return Ok(None);
        };
        let groups: BTreeSet<i64> = row.associations()?.into_values().collect();
        let mut rights = other_rights::list(&self.shared.db, &row.gym_id).await?;
        rights.retain(|right| opens(right, &groups));
        Ok(Some(api::OtherRights {
            read_at: Some(wire::timestamp(instant(reading.read_at))),
            complete: reading.complete,
            ..summary(&rights)
        }))
    }

    /// A page of them, read anew first where that is asked for.
    pub async fn list_other_rights(
        &self,
        request: &api::ListOtherRightsRequest,
    ) -> Result<api::ListOtherRightsResponse, Status> {
        let gym = &request.gym_id;
        let row = self.enabled(gym).await?;
        let size = match u64::try_from(request.page_size) {
            Ok(0) => USUAL,
            Ok(size) if size <= MOST => size,
            _ => return Err(refusal::invalid("page_size", "1 to 1000 is expected")),
        };
        let after = match request.page_token.as_str() {
            "" => 0,
            token => token
                .parse()
                .map_err(|_| refusal::invalid("page_token", "it is of no page of this list"))?,
        };
        let groups: BTreeSet<i64> = row
            .associations()
            .map_err(refusal::store)?
            .into_values()
            .collect();
        if request.refresh {
            let kisi = self.kisi(&row)?;
            let people = People::ask(&self.shared, gym).await;
            let scope = Scope {
                groups: &groups,
                lists: &Lists::new(),
                people: &people.map_err(refusal::rights)?,
            };
            rights::refresh(&self.shared, &kisi, Lane::SetUp, &row, &scope)
                .await
                .map_err(refusal::rights)?;
        }
        self.page_of_rights(gym, &groups, after, size)
            .await
            .map_err(refusal::store)
    }

    async fn page_of_rights(
        &self,
        gym: &str,
        groups: &BTreeSet<i64>,
        after: i64,
        size: u64,
    ) -> Result<api::ListOtherRightsResponse, DbErr> {
        let reading = readings::find(&self.shared.db, gym).await?;
        let rows = other_rights::page(&self.shared.db, gym, after, size).await?;
        let last = rows.last().filter(|_| rows.len() as u64 == size);
        let next_page_token = last.map(|row| row.id.to_string()).unwrap_or_default();
        let mut rights = Vec::new();
        for row in rows.iter().filter(|row| opens(row, groups)) {
            rights.push(shown(row, groups)?);
        }
        Ok(api::ListOtherRightsResponse {
            rights,
            next_page_token,
            read_at: reading.map(|reading| wire::timestamp(instant(reading.read_at))),
        })
    }
}

/// Whether it opens a door of one of these groups. A row that makes no sense is shown.
pub(super) fn opens(right: &Model, groups: &BTreeSet<i64>) -> bool {
    right
        .groups()
        .map_or(true, |opened| !opened.is_disjoint(groups))
}

/// How many there are of each kind.
pub(super) fn summary(rights: &[Model]) -> api::OtherRights {
    let count = |is: &dyn Fn(&Model) -> bool| {
        let found = rights.iter().filter(|right| is(right)).count();
        i64::try_from(found).unwrap_or(i64::MAX)
    };
    let members: BTreeSet<&String> = rights
        .iter()
        .filter_map(|right| right.member_id.as_ref())
        .collect();
    api::OtherRights {
        teams: count(&|right| right.holder == TEAM),
        guests: count(&|right| right.holder == GUEST),
        links: count(&|right| right.holder == LINK),
        staff: count(&Model::is_staff),
        people: count(&|right| right.holder == other_rights::USER && !right.is_staff()),
        members: i64::try_from(members.len()).unwrap_or(i64::MAX),
        member_ids: members.into_iter().take(NAMED).cloned().collect(),
        ..api::OtherRights::default()
    }
}

fn shown(right: &Model, groups: &BTreeSet<i64>) -> Result<api::OtherRight, DbErr> {
    let at = |micros: i64| wire::timestamp(instant(micros));
    Ok(api::OtherRight {
        id: right.right_id,
        holder: right.holder.clone(),
        holder_id: right.holder_id,
        member_id: right.member_id.clone(),
        team_name: right.team_name.clone(),
        target: right.target.clone(),
        target_id: right.target_id,
        role_id: right.role_id.clone(),
        groups: right.groups()?.intersection(groups).copied().collect(),
        valid_from: right.valid_from.map(at),
        valid_until: right.valid_until.map(at),
    })
}
