//! A membership-events of the test's own: a directory of people and versions, and a publisher.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use contracts::membership::v1::membership_service_server::{
    MembershipService, MembershipServiceServer,
};
use contracts::membership::v1::*;
use contracts::message::BusMessage;
use contracts::wire;
use event_bus::{Envelope, Publisher};
use jiff::Timestamp;
use tonic::{Request, Response, Status, Streaming};

/// People, their states, and the bus they are published on.
#[derive(Clone)]
pub struct Directory {
    publisher: Publisher,
    members: Arc<Mutex<BTreeMap<(String, String), Member>>>,
    silent: Arc<AtomicBool>,
}

impl Directory {
    pub fn new(publisher: Publisher) -> Self {
        Self {
            publisher,
            members: Arc::default(),
            silent: Arc::default(),
        }
    }

    /// Serves gRPC on a free port.
    pub async fn serve(&self) -> SocketAddr {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let service = MembershipServiceServer::new(self.clone());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        address
    }

    /// Whether it answers no question about versions from now on.
    pub fn be_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }

    /// A person with a state of these plans; not published.
    pub fn put(&self, gym: &str, member: &str, version: i64, plans: &[&str]) -> Member {
        let received_at = Some(wire::timestamp(Timestamp::now()));
        let state = MembershipStatusChanged {
            gym_id: gym.to_owned(),
            member_id: member.to_owned(),
            version,
            allowed: !plans.is_empty(),
            plans: plans
                .iter()
                .map(|plan| PlanAccess {
                    plan_id: (*plan).to_owned(),
                    valid_from: None,
                    valid_until: None,
                })
                .collect(),
            decided_at: Some(wire::timestamp(Timestamp::now())),
            cause: Some(Cause {
                kind: "call".to_owned(),
                id: "PutMembership".to_owned(),
                actor: "service:test".to_owned(),
                received_at,
            }),
            ..MembershipStatusChanged::default()
        };
        let person = Member {
            gym_id: gym.to_owned(),
            member_id: member.to_owned(),
            email: format!("{member}@example.com"),
            name: format!("Member {member}"),
            state: Some(state),
            ..Member::default()
        };
        self.insert(person.clone());
        person
    }

    pub fn get(&self, gym: &str, member: &str) -> Member {
        let key = (gym.to_owned(), member.to_owned());
        self.members.lock().unwrap()[&key].clone()
    }

    /// A decision about a member who keeps the name and e-mail that she has.
    pub async fn decide_as(&self, gym: &str, member: &str, version: i64, plans: &[&str]) {
        let known = self.get(gym, member);
        let mut person = self.put(gym, member, version, plans);
        (person.email, person.name) = (known.email, known.name);
        self.insert(person.clone());
        self.publish(&person.state.unwrap()).await;
    }

    pub fn insert(&self, person: Member) {
        let key = (person.gym_id.clone(), person.member_id.clone());
        self.members.lock().unwrap().insert(key, person);
    }

    /// The same, published.
    pub async fn decide(&self, gym: &str, member: &str, version: i64, plans: &[&str]) {
        let person = self.put(gym, member, version, plans);
        self.publish(&person.state.unwrap()).await;
    }

    /// Publishes a state; its id is that of the version, so a repeat is made by another id.
    pub async fn publish(&self, state: &MembershipStatusChanged) {
        self.publish_as(state, state.id()).await;
    }

    pub async fn publish_as(&self, state: &MembershipStatusChanged, id: String) {
        let envelope = Envelope {
            ce_id: id,
            ce_type: MembershipStatusChanged::TYPE.to_owned(),
            ce_source: "/membership-events".to_owned(),
            ce_time: Timestamp::now(),
            ce_subject: state.about(),
            traceparent: None,
        };
        self.publisher
            .publish(&state.subject(), &envelope, state)
            .await
            .unwrap();
    }
}

macro_rules! not_here {
    ($($name:ident($request:ty) -> $answer:ty;)*) => {$(
        // As async_trait writes it: attributes do not see into macros.
        fn $name<'life0, 'async_trait>(
            &'life0 self,
            _: Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<$answer>, Status>> + Send + 'async_trait>>
        where
            'life0: 'async_trait,
            Self: 'async_trait,
        {
            Box::pin(async { Err(Status::unimplemented(stringify!($name))) })
        }
    )*};
}

#[tonic::async_trait]
impl MembershipService for Directory {
    async fn get_member(
        &self,
        request: Request<GetMemberRequest>,
    ) -> Result<Response<Member>, Status> {
        let request = request.into_inner();
        let key = (request.gym_id, request.member_id);
        let members = self.members.lock().unwrap();
        let found = members.get(&key).cloned();
        found
            .map(Response::new)
            .ok_or_else(|| Status::not_found("no such member"))
    }

    async fn list_members(
        &self,
        request: Request<ListMembersRequest>,
    ) -> Result<Response<ListMembersResponse>, Status> {
        let request = request.into_inner();
        let members = self.members.lock().unwrap();
        let of_gym = members
            .values()
            .filter(|member| member.gym_id == request.gym_id);
        let after = of_gym.filter(|member| member.member_id > request.page_token);
        // Small pages, so that more than one is read.
        let page: Vec<Member> = after.take(5).cloned().collect();
        let last = page.get(4).map(|member| member.member_id.clone());
        Ok(Response::new(ListMembersResponse {
            members: page,
            next_page_token: last.unwrap_or_default(),
        }))
    }

    async fn list_member_versions(
        &self,
        request: Request<ListMemberVersionsRequest>,
    ) -> Result<Response<ListMemberVersionsResponse>, Status> {
        if self.silent.load(Ordering::SeqCst) {
            return Err(Status::unavailable("silent"));
        }
        let gym = request.into_inner().gym_id;
        let members = self.members.lock().unwrap();
        let members = members
            .values()
            .filter(|member| member.gym_id == gym)
            .filter_map(|member| {
                Some(MemberVersion {
                    member_id: member.member_id.clone(),
                    version: member.state.as_ref()?.version,
                })
            })
            .collect();
        Ok(Response::new(ListMemberVersionsResponse {
            members,
            next_page_token: String::new(),
        }))
    }

    async fn republish_gym(
        &self,
        request: Request<RepublishGymRequest>,
    ) -> Result<Response<RepublishGymResponse>, Status> {
        let request = request.into_inner();
        let wanted: Vec<Member> = {
            let members = self.members.lock().unwrap();
            members
                .values()
                .filter(|m| m.gym_id == request.gym_id)
                .filter(|m| {
                    request.member_ids.is_empty() || request.member_ids.contains(&m.member_id)
                })
                .cloned()
                .collect()
        };
        for person in &wanted {
            let state = person.state.clone().unwrap();
            let id = format!("{}/again/{}", state.id(), Timestamp::now());
            self.publish_as(&state, id).await;
        }
        Ok(Response::new(RepublishGymResponse {
            published: wanted.len() as i64,
        }))
    }

    not_here! {
        put_gym(PutGymRequest) -> WriteOutcome;
        put_member(PutMemberRequest) -> WriteOutcome;
        delete_member(DeleteMemberRequest) -> WriteOutcome;
        put_membership(PutMembershipRequest) -> WriteOutcome;
        pause_membership(PauseMembershipRequest) -> WriteOutcome;
        resume_membership(ResumeMembershipRequest) -> WriteOutcome;
        request_resume(RequestResumeRequest) -> WriteOutcome;
        cancel_membership(CancelMembershipRequest) -> WriteOutcome;
        record_payment(RecordPaymentRequest) -> WriteOutcome;
        forgive_invoice(ForgiveInvoiceRequest) -> WriteOutcome;
        put_override(PutOverrideRequest) -> WriteOutcome;
        clear_override(ClearOverrideRequest) -> WriteOutcome;
        explain_member(ExplainMemberRequest) -> ExplainMemberResponse;
        list_unmatched_billing(ListUnmatchedBillingRequest) -> ListUnmatchedBillingResponse;
        link_billing(LinkBillingRequest) -> WriteOutcome;
    }

    type ImportRosterStream =
        Pin<Box<dyn futures_util::Stream<Item = Result<ImportRosterProgress, Status>> + Send>>;

    async fn import_roster(
        &self,
        _: Request<Streaming<ImportRosterRequest>>,
    ) -> Result<Response<Self::ImportRosterStream>, Status> {
        Err(Status::unimplemented("import_roster"))
    }
}
