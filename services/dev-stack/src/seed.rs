//! The demo gyms' people and contracts, written as any other Gymflow service would: over gRPC.

use std::net::SocketAddr;

use anyhow::Context;
use contracts::membership::v1 as membership;
use contracts::membership::v1::membership_service_client::MembershipServiceClient;
use futures_util::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use crate::roster::{Roster, TIME_ZONE};
use crate::stack::Stack;

/// A client of membership-events that presents a service's token.
pub type Client = MembershipServiceClient<InterceptedService<Channel, Bearer>>;

/// Writes under way at once.
const AT_ONCE: usize = 16;
/// Kept in `DATA_DIR` once the gyms are in, so that later edits are not undone by a restart.
const MARKER: &str = "seeded";

/// Adds `authorization` to each call.
#[derive(Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl tonic::service::Interceptor for Bearer {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        request
            .metadata_mut()
            .insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// Connects to membership-events.
pub async fn client(stack: &Stack) -> anyhow::Result<Client> {
    let token = stack.issuer.service(Timestamp::now())?;
    client_of(stack.first("membership-events")?.grpc, &token).await
}

/// Connects to one membership-events.
pub async fn client_of(grpc: SocketAddr, token: &str) -> anyhow::Result<Client> {
    let channel = channel(grpc, token)
        .await
        .context("connecting to membership-events")?;
    Ok(MembershipServiceClient::new(channel))
}

/// Connects to a service's gRPC and presents this token.
pub async fn channel(
    grpc: SocketAddr,
    token: &str,
) -> anyhow::Result<InterceptedService<Channel, Bearer>> {
    let url = format!("http://{grpc}");
    let channel = Endpoint::from_shared(url)?.connect().await?;
    let token = format!("Bearer {token}");
    let bearer = Bearer(token.parse().context("a token that no header can carry")?);
    Ok(InterceptedService::new(channel, bearer))
}

/// Puts both gyms in, unless an earlier run on this folder did.
pub async fn memberships(stack: &Stack) -> anyhow::Result<()> {
    if stack.folder.path(MARKER).exists() {
        return Ok(());
    }
    let client = client(stack).await?;
    for roster in [&stack.demo, &stack.small] {
        gym(client.clone(), roster)
            .await
            .with_context(|| format!("seeding {}", roster.gym_id))?;
    }
    stack.folder.write(MARKER, "")
}

async fn gym(mut client: Client, roster: &Roster) -> anyhow::Result<()> {
    client
        .put_gym(membership::PutGymRequest {
            gym_id: roster.gym_id.into(),
            name: roster.name.into(),
            time_zone: TIME_ZONE.into(),
            billing_accounts: roster
                .accounts
                .iter()
                .map(|(provider, account)| membership::BillingAccount {
                    provider: (*provider).into(),
                    account: (*account).into(),
                })
                .collect(),
            source_version: 1,
            ..Default::default()
        })
        .await?;
    stream::iter(&roster.people)
        .map(|person| {
            let mut client = client.clone();
            let request = membership::PutMemberRequest {
                gym_id: roster.gym_id.into(),
                member_id: person.member_id.clone(),
                email: person.email.clone(),
                name: person.name.clone(),
                source_version: 1,
            };
            async move { client.put_member(request).await }
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    stream::iter(&roster.contracts)
        .map(|contract| {
            let mut client = client.clone();
            let request = membership::PutMembershipRequest {
                gym_id: roster.gym_id.into(),
                membership_id: contract.membership_id.clone(),
                plan_id: contract.plan_id.into(),
                member_ids: contract.holders.clone(),
                starts_on: crate::roster::STARTS_ON.to_string(),
                billing: Some(membership::BillingReference {
                    provider: "stripe".into(),
                    account: roster.account.into(),
                    subscription_id: Some(contract.subscription_id.clone()),
                    customer_id: Some(contract.customer_id.clone()),
                    mandate_id: None,
                }),
                source_version: 1,
                ..Default::default()
            };
            async move { client.put_membership(request).await }
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(())
}
