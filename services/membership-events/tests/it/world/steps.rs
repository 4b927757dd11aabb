//! What callers and providers do, and what is waited for.

use super::*;

impl World {
    pub async fn put_gym(&mut self, change: impl FnOnce(&mut wire::PutGymRequest)) {
        let mut request = wire::PutGymRequest {
            gym_id: GYM.into(),
            name: "Iron".into(),
            time_zone: "Europe/London".into(),
            overdue_grace: None,
            overdue_scope: String::new(),
            billing_accounts: vec![wire::BillingAccount {
                provider: "stripe".into(),
                account: ACCOUNT.into(),
            }],
            source_version: self.next(),
        };
        change(&mut request);
        let outcome = self.client().put_gym(request).await.expect("a gym");
        assert!(outcome.into_inner().applied);
    }

    pub async fn put_member(&mut self, member: &str) {
        let request = wire::PutMemberRequest {
            gym_id: GYM.into(),
            member_id: member.into(),
            email: format!("{member}@example.org"),
            name: format!("Person {member}"),
            source_version: self.next(),
        };
        self.client().put_member(request).await.expect("a member");
    }

    /// A membership of `member` on `gold` with subscription `sub_{id}`, running since January.
    pub fn membership(&mut self, id: &str, member: &str) -> wire::PutMembershipRequest {
        wire::PutMembershipRequest {
            gym_id: GYM.into(),
            membership_id: id.into(),
            plan_id: "gold".into(),
            member_ids: vec![member.into()],
            payer_member_id: None,
            starts_on: "2026-01-01".into(),
            ends_on: None,
            next_plan: None,
            billing: Some(wire::BillingReference {
                provider: "stripe".into(),
                account: ACCOUNT.into(),
                subscription_id: Some(format!("sub_{id}")),
                customer_id: Some(format!("cus_{member}")),
                mandate_id: None,
            }),
            source_version: self.next(),
        }
    }

    pub async fn put_membership(
        &mut self,
        id: &str,
        member: &str,
        change: impl FnOnce(&mut wire::PutMembershipRequest),
    ) -> wire::WriteOutcome {
        let mut request = self.membership(id, member);
        change(&mut request);
        let outcome = self.client().put_membership(request).await;
        outcome.expect("a membership").into_inner()
    }

    /// A gym with one member `ann` and her membership `ms`.
    pub async fn with_ann(&mut self) {
        self.put_gym(|_| {}).await;
        self.put_member("ann").await;
        self.put_membership("ms", "ann", |_| {}).await;
        self.until_allowed("ann", true).await;
    }

    pub async fn pause(&mut self, pause: &str, from: &str, until: Option<&str>) {
        let request = wire::PauseMembershipRequest {
            gym_id: GYM.into(),
            membership_id: "ms".into(),
            pause_id: pause.into(),
            from: from.into(),
            until: until.map(str::to_owned),
            source_version: self.next(),
        };
        self.client()
            .pause_membership(request)
            .await
            .expect("a pause");
    }

    pub async fn resume(&mut self, pause: Option<&str>) {
        let request = wire::ResumeMembershipRequest {
            gym_id: GYM.into(),
            membership_id: "ms".into(),
            pause_id: pause.map(str::to_owned),
            at: None,
            source_version: self.next(),
            unnumbered: false,
        };
        self.client()
            .resume_membership(request)
            .await
            .expect("a resume");
    }

    /// Puts an event on `BILLING`, under a bus id of its own so that the bus trims nothing.
    pub async fn publish(&self, event: &BillingEvent) {
        self.publish_as(event, format!("{}/{}", event.id(), rand_id()))
            .await;
    }

    /// Puts an event on `BILLING` under this id.
    pub async fn publish_as(&self, event: &BillingEvent, ce_id: String) {
        let envelope = Envelope {
            ce_id,
            ce_type: BillingEvent::TYPE.into(),
            ce_source: "/test".into(),
            ce_time: Timestamp::UNIX_EPOCH,
            ce_subject: event.about(),
            traceparent: None,
        };
        self.bus
            .publisher()
            .publish(&event.subject(), &envelope, event)
            .await
            .expect("published");
    }

    /// The state last published of a member.
    pub async fn published(&self, member: &str) -> Option<wire::MembershipStatusChanged> {
        let stream = self.bus.jetstream().get_stream("MEMBERSHIP").await.ok()?;
        let subject = format!("membership.v1.{GYM}.{member}");
        let message = stream
            .get_last_raw_message_by_subject(&subject)
            .await
            .ok()?;
        serde_json::from_slice(&message.payload).ok()
    }

    /// Waits for a published state of `member` that `wanted` accepts.
    pub async fn until(
        &self,
        what: &str,
        member: &str,
        wanted: impl Fn(&wire::MembershipStatusChanged) -> bool,
    ) -> wire::MembershipStatusChanged {
        eventually_some(&format!("{member}: {what}"), DEADLINE, async || {
            self.published(member).await.filter(&wanted)
        })
        .await
    }

    pub async fn until_allowed(
        &self,
        member: &str,
        allowed: bool,
    ) -> wire::MembershipStatusChanged {
        self.until(&format!("allowed={allowed}"), member, |state| {
            state.allowed == allowed
        })
        .await
    }

    /// Waits until the service has taken in everything that is on `BILLING`. An ack that was lost
    /// with a connection costs the 30 s after which the message comes again.
    pub async fn until_billing_is_quiet(&self) {
        testkit::eventually("BILLING is consumed", Duration::from_secs(60), async || {
            let Ok(stream) = self.bus.jetstream().get_stream("BILLING").await else {
                return false;
            };
            let Ok(info) = stream.consumer_info("membership-events").await else {
                return false;
            };
            info.num_pending == 0 && info.num_ack_pending == 0
        })
        .await;
    }

    /// The present instant, by the clock that decisions go by.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Waits until nothing that says who the member was is left.
    pub async fn until_erased(&self, member: &str) {
        let store = self.store().await;
        let what = format!("{member} is erased");
        testkit::eventually(&what, DEADLINE, async || {
            let open = store::erasures::list_open(store.reads(), 100).await;
            open.is_ok_and(|open| open.iter().all(|row| row.member_id.0.as_str() != member))
        })
        .await;
    }

    /// How many billing events wait for their membership.
    pub async fn unmatched(&self) -> u64 {
        let store = self.store().await;
        let counted = store::billing::count_parked(store.reads()).await;
        counted.expect("a count").0
    }

    pub async fn until_unmatched(&self, count: u64) {
        let what = format!("{count} events wait");
        testkit::eventually(&what, DEADLINE, async || self.unmatched().await == count).await;
    }

    pub async fn until_dead_letters(&self, count: u64) {
        let what = format!("{count} dead letters");
        testkit::eventually(&what, DEADLINE, async || self.dead_letters().await == count).await;
    }

    /// The number of dead letters.
    pub async fn dead_letters(&self) -> u64 {
        let stream = self.bus.jetstream().get_stream("DEAD_LETTER").await;
        let mut stream = stream.expect("a stream");
        stream.info().await.expect("its state").state.messages
    }
}
