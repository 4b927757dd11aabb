//! What can travel on the bus, and the headers that wrap it.

use serde::{Serialize, de::DeserializeOwned};

use crate::{access, billing, integration, membership, subjects};

/// A message of the bus: canonical proto3 JSON, with its CloudEvents type and its address.
pub trait BusMessage: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// The CloudEvents `ce-type`: the message's full proto name.
    const TYPE: &'static str;
    /// The stream it belongs to.
    const STREAM: &'static str;

    /// Where it is published.
    fn subject(&self) -> String;

    /// `ce-id` and `Nats-Msg-Id`: derived from the cause, so that a retry is the same message.
    fn id(&self) -> String;

    /// CloudEvents `ce-subject`: what it is about, such as `{gym}/{member}`.
    fn about(&self) -> String;
}

impl BusMessage for billing::v1::BillingEvent {
    const TYPE: &'static str = "gymflow.billing.v1.BillingEvent";
    const STREAM: &'static str = subjects::BILLING;

    fn subject(&self) -> String {
        subjects::billing(&self.provider, &self.account, &self.kind)
    }

    fn id(&self) -> String {
        format!("{}/{}/{}", self.provider, self.account, self.event_id)
    }

    fn about(&self) -> String {
        format!("{}/{}", self.provider, self.account)
    }
}

impl BusMessage for membership::v1::MembershipStatusChanged {
    const TYPE: &'static str = "gymflow.membership.v1.MembershipStatusChanged";
    const STREAM: &'static str = subjects::MEMBERSHIP;

    fn subject(&self) -> String {
        subjects::membership(&self.gym_id, &self.member_id)
    }

    fn id(&self) -> String {
        format!("{}/{}/{}", self.gym_id, self.member_id, self.version)
    }

    fn about(&self) -> String {
        format!("{}/{}", self.gym_id, self.member_id)
    }
}

impl BusMessage for access::v1::AccessApplied {
    const TYPE: &'static str = "gymflow.access.v1.AccessApplied";
    const STREAM: &'static str = subjects::ACCESS;

    fn subject(&self) -> String {
        subjects::access(&self.gym_id, &self.member_id)
    }

    fn id(&self) -> String {
        format!("{}/{}/{}", self.gym_id, self.member_id, self.applied_seq)
    }

    fn about(&self) -> String {
        format!("{}/{}", self.gym_id, self.member_id)
    }
}

impl BusMessage for integration::v1::IntegrationChanged {
    const TYPE: &'static str = "gymflow.integration.v1.IntegrationChanged";
    const STREAM: &'static str = subjects::INTEGRATION;

    fn subject(&self) -> String {
        subjects::integration(&self.gym_id)
    }

    fn id(&self) -> String {
        format!("{}/{}", self.gym_id, self.version)
    }

    fn about(&self) -> String {
        self.gym_id.clone()
    }
}

impl BusMessage for membership::v1::Notification {
    const TYPE: &'static str = "gymflow.membership.v1.Notification";
    const STREAM: &'static str = subjects::NOTIFY;

    fn subject(&self) -> String {
        subjects::notify(&self.gym_id, &self.kind)
    }

    fn id(&self) -> String {
        self.id.clone()
    }

    fn about(&self) -> String {
        match &self.member_id {
            Some(member) => format!("{}/{member}", self.gym_id),
            None => self.gym_id.clone(),
        }
    }
}
