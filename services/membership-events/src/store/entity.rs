//! The tables, one module each.
//!
//! Ids are typed (`store::keys`), dates are ISO text, instants microseconds since 1970, so that
//! both databases compare them alike and lose nothing.

/// Bus messages that were committed and not yet acked.
pub mod outbox {
    use sea_orm::entity::prelude::*;

    use super::super::keys::{GymKey, MemberKey};

    /// One message.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "outbox")]
    pub struct Model {
        /// Order of commit per member (the member's row is locked when it is drawn).
        #[sea_orm(primary_key)]
        pub seq: i64,
        /// The gym.
        pub gym_id: GymKey,
        /// The member, whose messages go out in order of `seq`.
        pub member_id: MemberKey,
        /// The member's version in the message.
        pub version: i64,
        /// The message as canonical proto3 JSON.
        pub payload: String,
        /// The W3C trace it belongs to.
        pub traceparent: Option<String>,
        /// Provider's time of the cause.
        pub occurred_at: i64,
        /// When it was written: the outbox's age counts from here.
        pub created_at: i64,
        /// Until then it belongs to the replica that claimed it; 0 is nobody's.
        pub claimed_until: i64,
    }

    /// No relations are followed.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// Gyms and their rules.
pub mod gyms {
    use sea_orm::entity::prelude::*;

    use super::super::keys::GymKey;

    /// One gym.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "gyms")]
    pub struct Model {
        /// Its id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub gym_id: GymKey,
        /// For people.
        pub name: String,
        /// IANA name.
        pub time_zone: String,
        /// How long an invoice may be open, microseconds.
        pub overdue_grace: i64,
        /// `member` or `membership`.
        pub overdue_scope: String,
        /// The caller's number.
        pub source_version: i64,
    }

    /// No relations are followed.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// Which provider accounts are a gym's own.
pub mod gym_accounts {
    use sea_orm::entity::prelude::*;

    use super::super::keys::GymKey;

    /// One account of one gym. Gyms of one owner may share an account.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "gym_accounts")]
    pub struct Model {
        /// Payment provider.
        #[sea_orm(primary_key, auto_increment = false)]
        pub provider: String,
        /// The provider's account.
        #[sea_orm(primary_key, auto_increment = false)]
        pub account: String,
        /// The gym.
        #[sea_orm(primary_key, auto_increment = false)]
        pub gym_id: GymKey,
    }

    /// No relations are followed.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// People in a gym, with the decision last made about each.
pub mod members {
    use sea_orm::entity::prelude::*;

    use super::super::keys::{GymKey, MemberKey};

    /// One person in one gym.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "members")]
    pub struct Model {
        /// The gym.
        #[sea_orm(primary_key, auto_increment = false)]
        pub gym_id: GymKey,
        /// The person.
        #[sea_orm(primary_key, auto_increment = false)]
        pub member_id: MemberKey,
        /// Empty once erased.
        pub email: String,
        /// Empty once erased.
        pub name: String,
        /// The caller's number.
        pub source_version: i64,
        /// Version of `state`; 0 while nothing was ever decided.
        pub version: i64,
        /// The decision as last put into the outbox, canonical proto3 JSON.
        pub state: Option<String>,
        /// When time alone changes the decision; the timers' column.
        pub changes_at: Option<i64>,
        /// JSON list of the overrides that have not ended.
        pub overrides: String,
        /// The person was erased.
        pub erased: bool,
    }

    /// No relations are followed.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// Memberships as Gymflow holds them. What is only ever read whole (holders, pauses) is JSON.
pub mod memberships {
    use sea_orm::entity::prelude::*;

    use super::super::keys::{GymKey, MemberKey, MembershipKey, PlanKey};

    /// One membership.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "memberships")]
    pub struct Model {
        /// The gym.
        #[sea_orm(primary_key, auto_increment = false)]
        pub gym_id: GymKey,
        /// Its id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub membership_id: MembershipKey,
        /// The plan from the start.
        pub plan_id: PlanKey,
        /// JSON list of member ids in the caller's order; the first pays unless `payer_member_id`.
        pub holders: String,
        /// The named payer.
        pub payer_member_id: Option<MemberKey>,
        /// First day.
        pub starts_on: String,
        /// Last day.
        pub ends_on: Option<String>,
        /// The plan that follows.
        pub next_plan_id: Option<PlanKey>,
        /// Its first day.
        pub next_plan_from: Option<String>,
        /// When it was cancelled.
        pub cancelled_at: Option<i64>,
        /// Last day of a cancelled membership; none is at once.
        pub cancel_ends_on: Option<String>,
        /// JSON list of the club's pauses.
        pub pauses: String,
        /// Provider's pauses that began by then were ended by the club.
        pub provider_pauses_ended_at: Option<i64>,
        /// The number of the last call that resumed it whole.
        pub resumed_source_version: Option<i64>,
        /// The instant of the last call without a number that resumed it whole.
        pub resumed_unnumbered_at: Option<i64>,
        /// Provider of the current billing reference.
        pub billing_provider: Option<String>,
        /// Account of the current billing reference.
        pub billing_account: Option<String>,
        /// Subscription of the current billing reference.
        pub billing_subscription: Option<String>,
        /// Customer of the current billing reference.
        pub billing_customer: Option<String>,
        /// Mandate of the current billing reference.
        pub billing_mandate: Option<String>,
        /// The caller's number.
        pub source_version: i64,
        /// When a caller last wrote it, or the instant of the roster that did; 0 is not known.
        pub written_at: i64,
    }

    /// No relations are followed.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// Who holds or pays for a membership: the index from people to memberships.
pub mod membership_people {
    use sea_orm::entity::prelude::*;

    use super::super::keys::{GymKey, MemberKey, MembershipKey};

    /// One person of one membership.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "membership_people")]
    pub struct Model {
        /// The gym.
        #[sea_orm(primary_key, auto_increment = false)]
        pub gym_id: GymKey,
        /// The person.
        #[sea_orm(primary_key, auto_increment = false)]
        pub member_id: MemberKey,
        /// The membership.
        #[sea_orm(primary_key, auto_increment = false)]
        pub membership_id: MembershipKey,
    }

    /// No relations are followed.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// Every billing reference a membership ever had, one row per provider's id.
pub mod billing_references {
    use sea_orm::entity::prelude::*;

    use super::super::keys::{GymKey, MembershipKey};

    /// One id under which a provider knows a membership.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "billing_references")]
    pub struct Model {
        /// Payment provider.
        #[sea_orm(primary_key, auto_increment = false)]
        pub provider: String,
        /// The provider's account.
        #[sea_orm(primary_key, auto_increment = false)]
        pub account: String,
        /// `subscription`, `customer` or `mandate`.
        #[sea_orm(primary_key, auto_increment = false)]
        pub kind: String,
        /// The provider's id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub reference: String,
        /// The gym.
        #[sea_orm(primary_key, auto_increment = false)]
        pub gym_id: GymKey,
        /// The membership.
        #[sea_orm(primary_key, auto_increment = false)]
        pub membership_id: MembershipKey,
        /// False for a former one.
        pub is_current: bool,
    }

    /// No relations are followed.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// By what providers may speak of people who pay for a membership no more.
pub mod former_payers {
    use sea_orm::entity::prelude::*;

    use super::super::keys::{GymKey, MemberKey, MembershipKey};

    /// One id of what was said, or could be, when another began to pay.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "former_payers")]
    pub struct Model {
        /// The gym.
        #[sea_orm(primary_key, auto_increment = false)]
        pub gym_id: GymKey,
        /// Who paid.
        #[sea_orm(primary_key, auto_increment = false)]
        pub member_id: MemberKey,
        /// For this.
        #[sea_orm(primary_key, auto_increment = false)]
        pub membership_id: MembershipKey,
        /// Payment provider; `gymflow` for what staff did.
        #[sea_orm(primary_key, auto_increment = false)]
        pub provider: String,
        /// The provider's account.
        #[sea_orm(primary_key, auto_increment = false)]
        pub account: String,
        /// `event`, `invoice`, `payment`, `subscription`, `customer` or `mandate`.
        #[sea_orm(primary_key, auto_increment = false)]
        pub kind: String,
        /// The provider's id.
        #[sea_orm(primary_key, auto_increment = false)]
        pub reference: String,
    }

    /// No relations are followed.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// The inbox: every billing event ever taken, kept for good under the provider's key.
pub mod billing_events {
    use sea_orm::entity::prelude::*;

    /// One event, linked (see `billing_links`) or parked.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "billing_events")]
    pub struct Model {
        /// Payment provider; `gymflow` for what staff did.
        #[sea_orm(primary_key, auto_increment = false)]
        pub provider: String,
        /// The provider's account; the gym for what staff did.
        #[sea_orm(primary_key, auto_increment = false)]
        pub account: String,
        /// The provider's id of the event.
        #[sea_orm(primary_key, auto_increment = false)]
        pub event_id: String,
        /// The event as canonical proto3 JSON.
        pub event: String,
        /// For ties by invoice.
        pub invoice_id: Option<String>,
        /// For ties by payment.
        pub payment_id: Option<String>,
        /// For links by reference.
        pub subscription_id: Option<String>,
        /// For links by reference.
        pub customer_id: Option<String>,
        /// For links by reference.
        pub mandate_id: Option<String>,
        /// `gymflow_membership_id` of the metadata.
        pub named_membership: Option<String>,
        /// When it reached us.
        pub received_at: i64,
        /// Since when nothing claims it; none once linked.
        pub parked_at: Option<i64>,
        /// `unknown_account`, `unknown_subscription` or `unknown_payment`.
        pub parked_why: Option<String>,
        /// Linked by its mandate or customer alone: what is known better moves it.
        pub is_weakly_linked: bool,
    }

    /// No relations are followed.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// Which membership an event is about.
pub mod billing_links {
    use sea_orm::entity::prelude::*;

    use super::super::keys::{GymKey, MembershipKey};

    /// One event of one membership.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "billing_links")]
    pub struct Model {
        /// The gym.
        #[sea_orm(primary_key, auto_increment = false)]
        pub gym_id: GymKey,
        /// The membership.
        #[sea_orm(primary_key, auto_increment = false)]
        pub membership_id: MembershipKey,
        /// Payment provider.
        #[sea_orm(primary_key, auto_increment = false)]
        pub provider: String,
        /// The provider's account.
        #[sea_orm(primary_key, auto_increment = false)]
        pub account: String,
        /// The provider's id of the event.
        #[sea_orm(primary_key, auto_increment = false)]
        pub event_id: String,
    }

    /// No relations are followed.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// Members to be forgotten. What stays for good, and says nothing of who it was.
pub mod erasures {
    use sea_orm::entity::prelude::*;

    use super::super::keys::{GymKey, MemberKey};

    /// One member.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "erasures")]
    pub struct Model {
        /// The gym.
        #[sea_orm(primary_key, auto_increment = false)]
        pub gym_id: GymKey,
        /// The member.
        #[sea_orm(primary_key, auto_increment = false)]
        pub member_id: MemberKey,
        /// The tombstone's version.
        pub version: i64,
        /// When it was asked for.
        pub requested_at: i64,
        /// By whom: `service:…`, `staff:…`.
        pub requested_by: String,
        /// When kisi-sync's answer `erased` was seen.
        pub answered_at: Option<i64>,
        /// When tables and streams held nothing of the person any more.
        pub purged_at: Option<i64>,
    }

    /// No relations are followed.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// Gyms whose rules have changed and where somebody is still to be decided about again.
pub mod rule_changes {
    use sea_orm::entity::prelude::*;

    use super::super::keys::GymKey;

    /// One gym.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "rule_changes")]
    pub struct Model {
        /// The gym.
        #[sea_orm(primary_key, auto_increment = false)]
        pub gym_id: GymKey,
        /// The last member decided about; empty before the first.
        pub after: String,
        /// Who changed them.
        pub actor: String,
        /// When.
        pub changed_at: i64,
        /// The trace it belongs to.
        pub traceparent: Option<String>,
    }

    /// No relations are followed.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}

/// Members who asked to be resumed. Kept, as the answer to who asked when.
pub mod resume_requests {
    use sea_orm::entity::prelude::*;

    use super::super::keys::{GymKey, MemberKey, MembershipKey};

    /// One request.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "resume_requests")]
    pub struct Model {
        /// The gym.
        #[sea_orm(primary_key, auto_increment = false)]
        pub gym_id: GymKey,
        /// The member.
        #[sea_orm(primary_key, auto_increment = false)]
        pub member_id: MemberKey,
        /// When.
        #[sea_orm(primary_key, auto_increment = false)]
        pub requested_at: i64,
        /// What is to be resumed.
        pub membership_id: MembershipKey,
        /// By whom: `member:…`, `staff:…`, `service:…`.
        pub requested_by: String,
        /// When the notification was durable.
        pub notified_at: Option<i64>,
        /// When the membership was found not to be paused any more.
        pub closed_at: Option<i64>,
    }

    /// No relations are followed.
    #[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}
    impl ActiveModelBehavior for ActiveModel {}
}
