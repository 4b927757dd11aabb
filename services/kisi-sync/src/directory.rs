//! What only membership-events knows: who a member is, and which versions a gym's members have.
//!
//! Names and e-mails are asked for when a Kisi user must be made or found, and are not kept.

use std::collections::BTreeMap;

use contracts::membership::v1::membership_service_client::MembershipServiceClient;
use contracts::membership::v1::{
    GetMemberRequest, ListMemberVersionsRequest, ListMembersRequest, RepublishGymRequest,
};
use service_runtime::grpc::ServiceChannel;
use tonic::{Code, Status};

use crate::store::members::digest_of_person;

/// Members of a page with names.
const PEOPLE_AT_ONCE: i32 = 500;
/// The most members asked to be republished in one call.
const REPUBLISH_AT_ONCE: usize = 500;

/// A person, as far as Kisi must know.
pub struct Person {
    pub email: String,
    pub name: Option<String>,
}

impl Person {
    /// See [`digest_of_person`].
    pub fn digest(&self, gym: &str, member: &str) -> String {
        digest_of_person(gym, member, &self.email, self.name.as_deref())
    }

    fn of(email: &str, name: &str) -> Option<Self> {
        let email = email.trim().to_lowercase();
        let name = Some(name.trim().to_owned()).filter(|name| !name.is_empty());
        (!email.is_empty()).then_some(Self { email, name })
    }
}

/// membership-events over gRPC.
#[derive(Clone)]
pub struct Directory {
    client: MembershipServiceClient<ServiceChannel>,
}

impl Directory {
    pub fn new(channel: ServiceChannel) -> Self {
        Self {
            client: MembershipServiceClient::new(channel),
        }
    }

    /// Name and e-mail of a member; None when there is no such person, or not any more.
    pub async fn find_person(&self, gym: &str, member: &str) -> Result<Option<Person>, Status> {
        let found = self.find(gym, member).await?;
        Ok(found
            .filter(|(_, erased)| !erased)
            .map(|(person, _)| person))
    }

    /// The same of one who is to be erased, as long as that is not done.
    pub async fn find_erased(&self, gym: &str, member: &str) -> Result<Option<Person>, Status> {
        let found = self.find(gym, member).await?;
        Ok(found
            .filter(|(_, erased)| *erased)
            .map(|(person, _)| person))
    }

    /// A person, and whether it is to be erased.
    async fn find(&self, gym: &str, member: &str) -> Result<Option<(Person, bool)>, Status> {
        let request = GetMemberRequest {
            gym_id: gym.to_owned(),
            member_id: member.to_owned(),
            read_mask: None,
        };
        let found = match self.client.clone().get_member(request).await {
            Ok(answer) => answer.into_inner(),
            Err(status) if status.code() == Code::NotFound => return Ok(None),
            Err(status) => return Err(status),
        };
        Ok(Person::of(&found.email, &found.name).map(|person| (person, found.erased)))
    }

    /// Member to the digest of name and e-mail, of the whole gym.
    pub async fn list_digests(&self, gym: &str) -> Result<BTreeMap<String, String>, Status> {
        let mut digests = BTreeMap::new();
        self.each_person(gym, |member, person| {
            let digest = person.digest(gym, &member);
            digests.insert(member, digest);
        })
        .await?;
        Ok(digests)
    }

    /// E-mail to the members who have it, of the whole gym. Not to be kept.
    pub async fn list_emails(&self, gym: &str) -> Result<BTreeMap<String, Vec<String>>, Status> {
        let mut members: BTreeMap<String, Vec<String>> = BTreeMap::new();
        self.each_person(gym, |member, person| {
            members.entry(person.email).or_default().push(member);
        })
        .await?;
        Ok(members)
    }

    /// Everybody of the gym who is not erased.
    async fn each_person(
        &self,
        gym: &str,
        mut take: impl FnMut(String, Person),
    ) -> Result<(), Status> {
        let mut request = ListMembersRequest {
            gym_id: gym.to_owned(),
            page_size: PEOPLE_AT_ONCE,
            ..ListMembersRequest::default()
        };
        loop {
            let page = self.client.clone().list_members(request.clone()).await?;
            let page = page.into_inner();
            for member in page.members.into_iter().filter(|member| !member.erased) {
                if let Some(person) = Person::of(&member.email, &member.name) {
                    take(member.member_id, person);
                }
            }
            if page.next_page_token.is_empty() {
                return Ok(());
            }
            request.page_token = page.next_page_token;
        }
    }

    /// Member to version, of the whole gym.
    pub async fn list_versions(&self, gym: &str) -> Result<BTreeMap<String, i64>, Status> {
        let mut versions = BTreeMap::new();
        let mut page_token = String::new();
        loop {
            let request = ListMemberVersionsRequest {
                gym_id: gym.to_owned(),
                page_size: 5_000,
                page_token,
            };
            let page = self.client.clone().list_member_versions(request).await?;
            let page = page.into_inner();
            versions.extend(page.members.into_iter().map(|m| (m.member_id, m.version)));
            if page.next_page_token.is_empty() {
                return Ok(versions);
            }
            page_token = page.next_page_token;
        }
    }

    /// Asks for these members' current states on the bus.
    pub async fn republish(&self, gym: &str, members: &[String]) -> Result<(), Status> {
        for part in members.chunks(REPUBLISH_AT_ONCE) {
            let request = RepublishGymRequest {
                gym_id: gym.to_owned(),
                member_ids: part.to_vec(),
            };
            self.client.clone().republish_gym(request).await?;
        }
        Ok(())
    }
}
