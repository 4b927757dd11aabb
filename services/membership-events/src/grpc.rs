//! `gymflow.membership.v1.MembershipService`: parses, calls, answers.
//!
//! Role `service` is checked in front of it (`AuthLayer::services_only`).

use access_domain::ids::{GymId, MemberId};
use access_domain::membership::{Reason, Status as MembershipStatus};
use contracts::membership::v1 as wire;
use contracts::membership::v1::membership_service_server::MembershipService;
use service_runtime::identity::grpc::caller_of;
use tonic::{Request, Response, Status, Streaming};

use crate::error::Error;
use crate::fields::Fields;
use crate::lanes::Lanes;
use crate::member_mask::MemberMask;
use crate::paging::{self, List, Page};
use crate::requests::{
    CancelMembership, ClearOverride, ForgiveInvoice, LinkBilling, PauseMembership, PutGym,
    PutMember, PutMembership, PutOverride, RecordPayment, RequestResume, ResumeMembership,
};
use crate::roster::{self, Importer};
use crate::unit::Decisions;
use crate::writes::{By, Call, Outcome, Write};
use crate::{by_hand, explain, people, reads, resume_requests, writes};

/// The service.
#[derive(Debug, Clone)]
pub struct Grpc {
    decisions: Decisions,
    writes: Lanes<Call>,
    importer: Importer,
}

impl Grpc {
    /// Put together by `lib.rs`.
    pub fn new(decisions: Decisions, importer: Importer) -> Self {
        Self {
            writes: Lanes::new(decisions.clone(), decisions.store().lanes()),
            decisions,
            importer,
        }
    }

    /// Writes when its turn comes.
    async fn write(&self, by: &By, write: impl Into<Write>) -> Answer<wire::WriteOutcome> {
        answer(
            self.writes
                .take(Call::new(&self.decisions, by, write))
                .await,
        )
    }

    /// Looks that a gym is known, where a list came out empty.
    async fn check_known(&self, gym: &GymId) -> Result<(), Status> {
        reads::check_known(self.decisions.store(), gym)
            .await
            .map_err(Error::into_status)
    }
}

/// Who calls which RPC, and the message.
fn opened<T>(request: Request<T>, rpc: &'static str) -> Result<(By, T), Status> {
    let caller = caller_of(&request)?;
    let by = By {
        rpc,
        actor: caller.actor(),
    };
    Ok((by, request.into_inner()))
}

/// Whom the caller names as the one who decided it; nobody is the caller.
fn decided(by: By, actor: &str) -> By {
    match actor {
        "" => by,
        actor => By {
            actor: actor.to_owned(),
            ..by
        },
    }
}

fn answer(outcome: Result<Outcome, Error>) -> Result<Response<wire::WriteOutcome>, Status> {
    let outcome = outcome.map_err(Error::into_status)?;
    Ok(Response::new(wire::WriteOutcome {
        applied: outcome.applied,
        source_version: outcome.source_version,
        members: outcome
            .members
            .into_iter()
            .map(|(member, version)| wire::MemberVersion {
                member_id: member.as_str().to_owned(),
                version,
            })
            .collect(),
    }))
}

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl MembershipService for Grpc {
    async fn put_gym(&self, request: Request<wire::PutGymRequest>) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "PutGym")?;
        let put = PutGym::try_from(request)?;
        answer(writes::put_gym(&self.decisions, &by, put).await)
    }

    async fn put_member(
        &self,
        request: Request<wire::PutMemberRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "PutMember")?;
        let put = PutMember::try_from(request)?;
        self.write(&by, put).await
    }

    async fn delete_member(
        &self,
        request: Request<wire::DeleteMemberRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "DeleteMember")?;
        let (gym, member) = gym_and_member(&request.gym_id, &request.member_id)?;
        answer(people::delete(&self.decisions, &by, &gym, &member).await)
    }

    async fn put_membership(
        &self,
        request: Request<wire::PutMembershipRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "PutMembership")?;
        let put = PutMembership::try_from(request)?;
        self.write(&by, put).await
    }

    async fn pause_membership(
        &self,
        request: Request<wire::PauseMembershipRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "PauseMembership")?;
        let pause = PauseMembership::try_from(request)?;
        self.write(&by, pause).await
    }

    async fn resume_membership(
        &self,
        request: Request<wire::ResumeMembershipRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "ResumeMembership")?;
        let resume = ResumeMembership::try_from(request)?;
        self.write(&by, resume).await
    }

    async fn request_resume(
        &self,
        request: Request<wire::RequestResumeRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "RequestResume")?;
        let request = RequestResume::try_from(request)?;
        answer(resume_requests::request(&self.decisions, &by, request).await)
    }

    async fn cancel_membership(
        &self,
        request: Request<wire::CancelMembershipRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "CancelMembership")?;
        let cancel = CancelMembership::try_from(request)?;
        self.write(&by, cancel).await
    }

    async fn record_payment(
        &self,
        request: Request<wire::RecordPaymentRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "RecordPayment")?;
        let payment = RecordPayment::try_from(request)?;
        self.write(&by, payment).await
    }

    async fn forgive_invoice(
        &self,
        request: Request<wire::ForgiveInvoiceRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "ForgiveInvoice")?;
        let forgive = ForgiveInvoice::try_from(request)?;
        let by = decided(by, &forgive.actor);
        self.write(&by, forgive).await
    }

    async fn put_override(
        &self,
        request: Request<wire::PutOverrideRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "PutOverride")?;
        let put = PutOverride::parse(request, self.decisions.now())?;
        let by = decided(by, &put.actor);
        self.write(&by, put).await
    }

    async fn clear_override(
        &self,
        request: Request<wire::ClearOverrideRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "ClearOverride")?;
        let clear = ClearOverride::try_from(request)?;
        let by = decided(by, &clear.actor);
        self.write(&by, clear).await
    }

    async fn get_member(&self, request: Request<wire::GetMemberRequest>) -> Answer<wire::Member> {
        let request = request.into_inner();
        let mut fields = Fields::new();
        let gym: Option<GymId> = fields.id("gym_id", &request.gym_id);
        let member: Option<MemberId> = fields.id("member_id", &request.member_id);
        let mask = MemberMask::parse(&mut fields, request.read_mask);
        let (gym, member) = fields.check(gym.zip(member))?;
        let store = self.decisions.store();
        let found = reads::member(store, &gym, &member, mask.has("open_invoices"))
            .await
            .map_err(Error::into_status)?;
        let Some(found) = found else {
            self.check_known(&gym).await?;
            return Err(Error::Unknown("member").into_status());
        };
        Ok(Response::new(mask.shown(found)))
    }

    async fn list_members(
        &self,
        request: Request<wire::ListMembersRequest>,
    ) -> Answer<wire::ListMembersResponse> {
        let request = request.into_inner();
        let mut fields = Fields::new();
        let gym: Option<GymId> = fields.id("gym_id", &request.gym_id);
        if !request.status.is_empty() {
            let _: Option<MembershipStatus> = fields.word("status", &request.status);
        }
        if !request.reason.is_empty() {
            let _: Option<Reason> = fields.word("reason", &request.reason);
        }
        let query = fields.text("query", &request.query, 254);
        let of = [
            "ListMembers",
            &request.gym_id,
            &request.query,
            &request.status,
            &request.reason,
        ];
        let (size, token) = (request.page_size, &request.page_token);
        let page = Page::parse(&mut fields, List(&of), size, token, 100, 500);
        let (gym, query, page) = fields.check((|| Some((gym?, query?, page?)))())?;
        let next_token = |position: String| List(&of).token(&position);
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let filter = reads::Filter {
            query: given(query),
            status: given(request.status.clone()),
            reason: given(request.reason.clone()),
        };
        let store = self.decisions.store();
        let (members, next) = reads::list(store, &gym, &filter, page.after, page.size)
            .await
            .map_err(Error::into_status)?;
        if members.is_empty() {
            self.check_known(&gym).await?;
        }
        Ok(Response::new(wire::ListMembersResponse {
            members,
            next_page_token: next.map(next_token).unwrap_or_default(),
        }))
    }

    async fn list_member_versions(
        &self,
        request: Request<wire::ListMemberVersionsRequest>,
    ) -> Answer<wire::ListMemberVersionsResponse> {
        let request = request.into_inner();
        let mut fields = Fields::new();
        let gym: Option<GymId> = fields.id("gym_id", &request.gym_id);
        let of = ["ListMemberVersions", &request.gym_id];
        let (size, token) = (request.page_size, &request.page_token);
        let page = Page::parse(&mut fields, List(&of), size, token, 5_000, 10_000);
        let (gym, page) = fields.check(gym.zip(page))?;
        let after = page.after.unwrap_or_default();
        let db = self.decisions.store().reads();
        let versions = crate::store::members::list_versions(db, &gym, &after, page.size as u64 + 1)
            .await
            .map_err(|error| Error::from(error).into_status())?;
        let more = versions.len() > page.size;
        let members: Vec<_> = versions
            .into_iter()
            .take(page.size)
            .map(|(member, version)| wire::MemberVersion {
                member_id: member.to_string(),
                version,
            })
            .collect();
        if members.is_empty() {
            self.check_known(&gym).await?;
        }
        let next_page_token = match members.last() {
            Some(last) if more => List(&of).token(&last.member_id),
            _ => String::new(),
        };
        Ok(Response::new(wire::ListMemberVersionsResponse {
            members,
            next_page_token,
        }))
    }

    async fn republish_gym(
        &self,
        request: Request<wire::RepublishGymRequest>,
    ) -> Answer<wire::RepublishGymResponse> {
        let (by, request) = opened(request, "RepublishGym")?;
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let mut members = std::collections::BTreeSet::new();
        for (i, id) in request.member_ids.iter().enumerate() {
            members.extend(fields.id::<MemberId>(&format!("member_ids[{i}]"), id));
        }
        let gym: GymId = fields.check(gym)?;
        let published = people::republish(&self.decisions, &by, &gym, members)
            .await
            .map_err(Error::into_status)?;
        Ok(Response::new(wire::RepublishGymResponse {
            published: published as i64,
        }))
    }

    async fn explain_member(
        &self,
        request: Request<wire::ExplainMemberRequest>,
    ) -> Answer<wire::ExplainMemberResponse> {
        let request = request.into_inner();
        let mut fields = Fields::new();
        let gym: Option<GymId> = fields.id("gym_id", &request.gym_id);
        let member: Option<MemberId> = fields.id("member_id", &request.member_id);
        let at = fields.optional_instant("at", request.at.as_ref());
        let (gym, member, at) = fields.check((|| Some((gym?, member?, at?)))())?;
        explain::explain(&self.decisions, &gym, &member, at)
            .await
            .map(Response::new)
            .map_err(Error::into_status)
    }

    type ImportRosterStream = roster::Answers;

    async fn import_roster(
        &self,
        request: Request<Streaming<wire::ImportRosterRequest>>,
    ) -> Answer<Self::ImportRosterStream> {
        let (by, stream) = opened(request, "ImportRoster")?;
        let answers = self.importer.import(by, stream).await?;
        Ok(Response::new(answers))
    }

    async fn list_unmatched_billing(
        &self,
        request: Request<wire::ListUnmatchedBillingRequest>,
    ) -> Answer<wire::ListUnmatchedBillingResponse> {
        let request = request.into_inner();
        let mut fields = Fields::new();
        let gym: Option<Option<GymId>> = if request.gym_id.is_empty() {
            Some(None)
        } else {
            fields.id("gym_id", &request.gym_id).map(Some)
        };
        let of = ["ListUnmatchedBilling", &request.gym_id];
        let (size, token) = (request.page_size, &request.page_token);
        let page = Page::parse(&mut fields, List(&of), size, token, 100, 500);
        let (gym, page) = fields.check(gym.zip(page))?;
        let after = page.after.as_deref().and_then(paging::parked_at);
        let mut events = reads::list_unmatched(
            self.decisions.store(),
            gym.as_ref(),
            after,
            page.size as u64 + 1,
        )
        .await
        .map_err(Error::into_status)?;
        if let Some(gym) = gym.filter(|_| events.is_empty()) {
            self.check_known(&gym).await?;
        }
        let more = events.len() > page.size;
        events.truncate(page.size);
        let next_page_token = match events.last() {
            Some(last) if more => List(&of).token(&paging::parked_position(last)),
            _ => String::new(),
        };
        Ok(Response::new(wire::ListUnmatchedBillingResponse {
            events,
            next_page_token,
        }))
    }

    async fn link_billing(
        &self,
        request: Request<wire::LinkBillingRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "LinkBilling")?;
        let link = LinkBilling::try_from(request)?;
        let by = decided(by, &link.actor);
        answer(by_hand::link_billing(&self.decisions, &by, link).await)
    }
}

fn gym_and_member(gym: &str, member: &str) -> Result<(GymId, MemberId), Status> {
    let mut fields = Fields::new();
    let gym = fields.id("gym_id", gym);
    let member = fields.id("member_id", member);
    fields.check(gym.zip(member))
}
