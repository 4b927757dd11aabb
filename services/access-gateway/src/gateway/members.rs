//! One member: the page, the check at a door, unlocking, the phone's report.

use std::time::Duration;

use contracts::access::v1 as wire_access;
use contracts::integration::v1::GroupDoor;
use contracts::membership::v1::GetMemberRequest;
use service_runtime::identity::Caller;
use tracing::debug;

use super::{Gateway, unknown_member};
use crate::decide::{self, Access, Action, Alert, AlertCode};
use crate::facts::{GymFacts, MemberFacts};
use crate::permissions::PhonePermissions;
use crate::permit::{self, Scope, check_ids, check_kisi_id};
use crate::refusal::Refusal;
use crate::upstream::{kisi_refused, within};

/// A page must not wait for a link.
const PAY_LINK_LIMIT: Duration = Duration::from_millis(800);
/// A door that takes longer than this will not open for whoever stands before it.
const UNLOCK_LIMIT: Duration = Duration::from_secs(15);
/// Members of one batch.
pub const MOST_IN_BATCH: usize = 1_000;

impl Gateway {
    /// A member's page, the link to pay by included where it can be had in time.
    pub async fn access_status(
        &self,
        caller: &Caller,
        gym: &str,
        member: &str,
    ) -> Result<Access, Refusal> {
        permit::member(caller, gym, member, Scope::Read)?;
        let mut access = self.access_now(gym, member)?;
        self.fetch_pay_link(caller, gym, member, &mut access).await;
        Ok(access)
    }

    /// As [`Self::access_status`] by what is in memory alone, for callers already permitted.
    pub(crate) fn access_now(&self, gym: &str, member: &str) -> Result<Access, Refusal> {
        self.caught_up()?;
        let now = self.clock.now();
        let phone = self.permissions.of(gym, member, now);
        self.projection
            .member(gym, member)
            .and_then(|(gym, facts)| decide::access(gym.as_deref(), &facts, phone, now))
            .ok_or_else(unknown_member)
    }

    async fn fetch_pay_link(&self, caller: &Caller, gym: &str, member: &str, access: &mut Access) {
        let unpaid = access
            .alerts
            .iter_mut()
            .find(|alert| alert.code == AlertCode::MissedPayment);
        let Some(alert) = unpaid else {
            return;
        };
        let ask = GetMemberRequest {
            gym_id: gym.to_owned(),
            member_id: member.to_owned(),
            read_mask: Some(pbjson_types::FieldMask {
                paths: vec!["open_invoices".to_owned()],
            }),
        };
        let mut membership = self.upstream.membership();
        let asked = membership.get_member(within(PAY_LINK_LIMIT, caller, ask));
        // The client's own limit starts once it is connected.
        match tokio::time::timeout(PAY_LINK_LIMIT, asked).await {
            Ok(Ok(answer)) => {
                let links = answer.into_inner().open_invoices;
                alert.action = Action::Pay(
                    links
                        .into_iter()
                        .find_map(|invoice| invoice.payment_url)
                        .filter(|url| url.starts_with("https://") || url.starts_with("http://")),
                );
            }
            Ok(Err(status)) => debug!(grpc.code = ?status.code(), "No pay link was to be had"),
            Err(_) => debug!("No pay link was to be had in time"),
        }
    }

    /// May this member enter?
    pub fn check_access(
        &self,
        caller: &Caller,
        request: &wire_access::CheckAccessRequest,
    ) -> Result<wire_access::CheckAccessResponse, Refusal> {
        permit::member(caller, &request.gym_id, &request.member_id, Scope::Read)?;
        if let Some(group) = request.group_id {
            check_kisi_id("group_id", group)?;
        }
        self.caught_up()?;
        let answer = self.check(&request.gym_id, &request.member_id, request.group_id);
        if answer.unknown {
            return Err(unknown_member());
        }
        Ok(answer)
    }

    /// The same for many; members nobody knows are answered as such.
    pub fn batch_check_access(
        &self,
        caller: &Caller,
        request: &wire_access::BatchCheckAccessRequest,
    ) -> Result<wire_access::BatchCheckAccessResponse, Refusal> {
        permit::staff(caller, &request.gym_id, Scope::Read)?;
        if request.member_ids.len() > MOST_IN_BATCH {
            return Err(Refusal::field(
                "member_ids",
                format!("at most {MOST_IN_BATCH} are expected"),
            ));
        }
        let names: Vec<String> = (0..request.member_ids.len())
            .map(|index| format!("member_ids[{index}]"))
            .collect();
        let ids: Vec<(&str, &str)> = names
            .iter()
            .map(String::as_str)
            .zip(request.member_ids.iter().map(String::as_str))
            .collect();
        check_ids(&ids)?;
        self.caught_up()?;
        let results = request
            .member_ids
            .iter()
            .map(|member| self.check(&request.gym_id, member, None))
            .collect();
        Ok(wire_access::BatchCheckAccessResponse { results })
    }

    fn check(
        &self,
        gym: &str,
        member: &str,
        group: Option<i64>,
    ) -> wire_access::CheckAccessResponse {
        let now = self.clock.now();
        let (gym, facts) = self.projection.member(gym, member).unwrap_or_default();
        checked(gym.as_deref(), member, &facts, group, now)
    }

    /// The doors of a member's groups.
    pub fn list_doors(
        &self,
        caller: &Caller,
        gym: &str,
        member: &str,
    ) -> Result<Vec<GroupDoor>, Refusal> {
        permit::member(caller, gym, member, Scope::Read)?;
        Ok(self.access_now(gym, member)?.doors)
    }

    /// Opens a door as the member: refused here only on a fact, else through kisi-sync.
    pub async fn unlock(
        &self,
        caller: &Caller,
        request: wire_access::UnlockRequest,
    ) -> Result<wire_access::UnlockResponse, Refusal> {
        permit::member(caller, &request.gym_id, &request.member_id, Scope::Override)?;
        check_kisi_id("lock_id", request.lock_id)?;
        match self.access_now(&request.gym_id, &request.member_id) {
            Ok(mut access) if !access.decision.allowed => {
                self.fetch_pay_link(caller, &request.gym_id, &request.member_id, &mut access)
                    .await;
                let alert = access.alerts.into_iter().next();
                return Ok(wire_access::UnlockResponse {
                    unlocked: false,
                    alert: alert.map(Alert::into),
                });
            }
            // Without facts Kisi decides at the door.
            Ok(_) | Err(Refusal::NotCaughtUp) => {}
            Err(refusal) => return Err(refusal),
        }
        let mut kisi = self.upstream.kisi();
        let answer = kisi.unlock(within(UNLOCK_LIMIT, caller, request)).await;
        Ok(answer.map_err(kisi_refused)?.into_inner())
    }

    /// Keeps what the phone says of its permissions; answers the alerts they make.
    pub fn report_permissions(
        &self,
        caller: &Caller,
        gym: &str,
        member: &str,
        phone: PhonePermissions,
    ) -> Result<Vec<Alert>, Refusal> {
        permit::member(caller, gym, member, Scope::Override)?;
        self.access_now(gym, member)?;
        self.permissions
            .report(gym, member, phone, self.clock.now());
        let alerts = self.access_now(gym, member)?.alerts;
        Ok(alerts
            .into_iter()
            .filter(|alert| {
                matches!(
                    alert.code,
                    AlertCode::MissingPermissionBluetooth | AlertCode::MissingPermissionLocation
                )
            })
            .collect())
    }
}

fn checked(
    gym: Option<&GymFacts>,
    member: &str,
    facts: &MemberFacts,
    group: Option<i64>,
    now: jiff::Timestamp,
) -> wire_access::CheckAccessResponse {
    let as_of = Some(contracts::wire::timestamp(now));
    let Some(decided) = facts.known() else {
        return wire_access::CheckAccessResponse {
            member_id: member.to_owned(),
            unknown: true,
            as_of,
            ..Default::default()
        };
    };
    let groups = decide::entitled_groups(gym, decided, now);
    let mut reasons: Vec<String> = decided
        .reasons
        .iter()
        .map(|reason| reason.as_str().to_owned())
        .collect();
    if decide::lacks_group(gym, decided, now) {
        reasons.push(AlertCode::PlanWithoutAccess.as_str().to_owned());
    }
    wire_access::CheckAccessResponse {
        member_id: member.to_owned(),
        allowed: group.map_or(!groups.is_empty(), |group| groups.contains(&group)),
        reasons,
        version: decided.version,
        as_of,
        group_ids: groups.into_iter().collect(),
        unknown: false,
    }
}
