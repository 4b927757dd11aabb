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
use crate::paging::{self, Page};
use crate::requests::{
    CancelMembership, ForgiveInvoice, LinkBilling, PauseMembership, PutGym, PutMember,
    PutMembership, PutOverride, RecordPayment, RequestResume, ResumeMembership,
};
use crate::roster::{self, Importer};
use crate::unit::Decisions;
use crate::writes::{By, Outcome};
use crate::{by_hand, desk, explain, pauses, people, reads, resume_requests, writes};

/// The service.
#[derive(Debug, Clone)]
pub struct Grpc {
    decisions: Decisions,
    importer: Importer,
}

impl Grpc {
    /// Put together by `lib.rs`.
    pub fn new(decisions: Decisions, importer: Importer) -> Self {
        Self {
            decisions,
            importer,
        }
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
        answer(writes::put_member(&self.decisions, &by, put).await)
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
        answer(writes::put_membership(&self.decisions, &by, put).await)
    }

    async fn pause_membership(
        &self,
        request: Request<wire::PauseMembershipRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "PauseMembership")?;
        let pause = PauseMembership::try_from(request)?;
        answer(pauses::pause(&self.decisions, &by, pause).await)
    }

    async fn resume_membership(
        &self,
        request: Request<wire::ResumeMembershipRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "ResumeMembership")?;
        let resume = ResumeMembership::try_from(request)?;
        answer(pauses::resume(&self.decisions, &by, resume).await)
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
        answer(writes::cancel_membership(&self.decisions, &by, cancel).await)
    }

    async fn record_payment(
        &self,
        request: Request<wire::RecordPaymentRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "RecordPayment")?;
        let payment = RecordPayment::try_from(request)?;
        answer(desk::record_payment(&self.decisions, &by, payment).await)
    }

    async fn forgive_invoice(
        &self,
        request: Request<wire::ForgiveInvoiceRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "ForgiveInvoice")?;
        let forgive = ForgiveInvoice::try_from(request)?;
        answer(desk::forgive_invoice(&self.decisions, &by, forgive).await)
    }

    async fn put_override(
        &self,
        request: Request<wire::PutOverrideRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "PutOverride")?;
        let put = PutOverride::parse(request, self.decisions.now())?;
        answer(people::put_override(&self.decisions, &by, put).await)
    }

    async fn clear_override(
        &self,
        request: Request<wire::ClearOverrideRequest>,
    ) -> Answer<wire::WriteOutcome> {
        let (by, request) = opened(request, "ClearOverride")?;
        let mut fields = Fields::new();
        let gym = fields.id("gym_id", &request.gym_id);
        let member = fields.id("member_id", &request.member_id);
        let id = fields.id("override_id", &request.override_id);
        let (gym, member, id) = fields.check((|| Some((gym?, member?, id?)))())?;
        answer(people::clear_override(&self.decisions, &by, &gym, &member, &id).await)
    }

    async fn get_member(&self, request: Request<wire::GetMemberRequest>) -> Answer<wire::Member> {
        let request = request.into_inner();
        let (gym, member) = gym_and_member(&request.gym_id, &request.member_id)?;
        let mask = request.read_mask.filter(|mask| !mask.paths.is_empty());
        let with_invoices = mask
            .as_ref()
            .is_none_or(|mask| mask.paths.iter().any(|path| path == "open_invoices"));
        let found = reads::member(self.decisions.store(), &gym, &member, with_invoices)
            .await
            .map_err(Error::into_status)?
            .ok_or_else(|| Status::not_found("the member is not known"))?;
        masked(found, mask.as_ref()).map(Response::new)
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
        let page = Page::parse(
            &mut fields,
            request.page_size,
            &request.page_token,
            100,
            500,
        );
        let (gym, page) = fields.check(gym.zip(page))?;
        let given = |text: String| Some(text).filter(|text| !text.is_empty());
        let filter = reads::Filter {
            query: given(request.query),
            status: given(request.status),
            reason: given(request.reason),
        };
        let (members, next) =
            reads::list(self.decisions.store(), &gym, &filter, page.after, page.size)
                .await
                .map_err(Error::into_status)?;
        Ok(Response::new(wire::ListMembersResponse {
            members,
            next_page_token: next.map(|id| paging::token(&id)).unwrap_or_default(),
        }))
    }

    async fn list_member_versions(
        &self,
        request: Request<wire::ListMemberVersionsRequest>,
    ) -> Answer<wire::ListMemberVersionsResponse> {
        let request = request.into_inner();
        let mut fields = Fields::new();
        let gym: Option<GymId> = fields.id("gym_id", &request.gym_id);
        let page = Page::parse(
            &mut fields,
            request.page_size,
            &request.page_token,
            5_000,
            10_000,
        );
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
        let next_page_token = match members.last() {
            Some(last) if more => paging::token(&last.member_id),
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
        let page = Page::parse(
            &mut fields,
            request.page_size,
            &request.page_token,
            100,
            500,
        );
        let after = match page.as_ref().and_then(|page| page.after.as_deref()) {
            None => Some(None),
            Some(text) => {
                let position = paging::parked_position(text);
                if position.is_none() {
                    fields.fault("page_token", "a token of an earlier answer is expected");
                }
                position.map(Some)
            }
        };
        let (gym, page, after) = fields.check((|| Some((gym?, page?, after?)))())?;
        let mut events = reads::list_unmatched(
            self.decisions.store(),
            gym.as_ref(),
            after,
            page.size as u64 + 1,
        )
        .await
        .map_err(Error::into_status)?;
        let more = events.len() > page.size;
        events.truncate(page.size);
        let next_page_token = match events.last() {
            Some(last) if more => paging::parked_token(last),
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
        let (mut by, request) = opened(request, "LinkBilling")?;
        let link = LinkBilling::try_from(request)?;
        if !link.actor.is_empty() {
            by.actor.clone_from(&link.actor);
        }
        answer(by_hand::link_billing(&self.decisions, &by, link).await)
    }
}

fn gym_and_member(gym: &str, member: &str) -> Result<(GymId, MemberId), Status> {
    let mut fields = Fields::new();
    let gym = fields.id("gym_id", gym);
    let member = fields.id("member_id", member);
    fields.check(gym.zip(member))
}

/// Leaves only what the mask names; ids are always there.
fn masked(
    member: wire::Member,
    mask: Option<&pbjson_types::FieldMask>,
) -> Result<wire::Member, Status> {
    let Some(mask) = mask else {
        return Ok(member);
    };
    let mut shown = wire::Member {
        gym_id: member.gym_id,
        member_id: member.member_id,
        ..wire::Member::default()
    };
    let mut fields = Fields::new();
    for path in &mask.paths {
        match path.as_str() {
            "gym_id" | "member_id" => {}
            "email" => shown.email.clone_from(&member.email),
            "name" => shown.name.clone_from(&member.name),
            "source_version" => shown.source_version = member.source_version,
            "state" => shown.state.clone_from(&member.state),
            "open_invoices" => shown.open_invoices.clone_from(&member.open_invoices),
            "erased" => shown.erased = member.erased,
            _ => fields.fault("read_mask", "fields of Member are expected"),
        }
    }
    fields.check(Some(shown))
}
