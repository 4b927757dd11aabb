//! A long run of whatever may happen, many at once, with a fault in the middle. Whenever nothing is
//! under way, what was published last about everybody is what the tables come to.

use std::time::Duration;

use contracts::membership::v1 as wire;
use contracts::wire as convert;
use membership_events::store::outbox;
use tonic::Code;

use crate::world::{GYM, World, event, invoice, on_both};

pub const PEOPLE: [&str; 4] = ["ann", "bob", "cat", "dan"];

on_both! {
    async fn everybody_ends_as_the_tables_say(world: World) {
        world.put_gym(|_| {}).await;
        for member in PEOPLE {
            world.put_member(member).await;
        }
        for (i, member) in PEOPLE.iter().enumerate() {
            world.put_membership(&format!("ms_{i}"), member, |_| {}).await;
        }
        if world.is_postgres() {
            world.start_replica().await;
        }
        let store = world.store().await;
        let mut dice = Dice(20_260_310);
        for round in 0..20 {
            let mut together = tokio::task::JoinSet::new();
            for _ in 0..8 {
                step(world, &mut dice, &mut together).await;
            }
            if round == 10 {
                world.nats.restart().await.expect("restarted");
            }
            while let Some(answer) = together.join_next().await {
                let code = answer.expect("no panic").err().map(|status| status.code());
                assert!(matches!(code, None | Some(Code::FailedPrecondition)), "{code:?}");
            }
            world.until_billing_is_quiet().await;
            testkit::eventually("the outbox is empty", Duration::from_secs(20), async || {
                let waiting = outbox::backlog(store.reads(), i64::MAX).await;
                waiting.expect("a count").depth == 0
            })
            .await;
            world.check_everybody(&store).await;
        }
    }
}

/// A fixed sequence of numbers, the same in every run.
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, sides: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % sides
    }
}

pub type Answers = tokio::task::JoinSet<Result<(), tonic::Status>>;

/// Starts one write, or publishes one event.
pub async fn step(world: &mut World, dice: &mut Dice, together: &mut Answers) {
    let token = world.tokens.service("dice");
    let clients = world.clients_with(&token);
    let mut client = clients[dice.below(clients.len() as u64) as usize].clone();
    let nth = dice.below(4);
    let membership_id = format!("ms_{nth}");
    let member = PEOPLE[dice.below(4) as usize];
    let source_version = world.next();
    match dice.below(8) {
        0 => {
            let mut put = world.membership(&membership_id, member);
            put.member_ids = (0..=dice.below(2))
                .map(|_| PEOPLE[dice.below(4) as usize].to_owned())
                .collect();
            put.plan_id = format!("plan_{}", dice.below(3));
            put.payer_member_id = (dice.below(2) == 0).then(|| member.to_owned());
            together.spawn(async move { client.put_membership(put).await.map(drop) });
        }
        1 => {
            let pause = wire::PauseMembershipRequest {
                gym_id: GYM.into(),
                membership_id,
                pause_id: format!("p_{}", dice.below(3)),
                from: "2026-03-10".into(),
                until: (dice.below(2) == 0).then(|| "2026-04-01".to_owned()),
                source_version,
            };
            together.spawn(async move { client.pause_membership(pause).await.map(drop) });
        }
        2 => {
            let resume = wire::ResumeMembershipRequest {
                gym_id: GYM.into(),
                membership_id,
                pause_id: None,
                at: None,
                source_version,
                unnumbered: false,
            };
            together.spawn(async move { client.resume_membership(resume).await.map(drop) });
        }
        3 => {
            let cancel = wire::CancelMembershipRequest {
                gym_id: GYM.into(),
                membership_id,
                ends_on: None,
                take_back: Some(dice.below(3) > 0),
                source_version,
            };
            together.spawn(async move { client.cancel_membership(cancel).await.map(drop) });
        }
        4 => {
            let payment = wire::RecordPaymentRequest {
                gym_id: GYM.into(),
                membership_id,
                payment_id: format!("desk_{}", dice.below(20)),
                invoice_id: None,
                amount_minor: 4_000,
                currency: "GBP".into(),
                received_at: Some(convert::timestamp(
                    "2026-03-10T11:00:00Z".parse().expect("an instant"),
                )),
            };
            together.spawn(async move { client.record_payment(payment).await.map(drop) });
        }
        5 => {
            let kind = ["subscription_paused", "subscription_resumed"][dice.below(2) as usize];
            let at = format!("2026-03-10T0{}:00:00Z", dice.below(9));
            let mut told = event(&format!("evt_{source_version}"), kind, &at);
            told.subscription_id = Some(format!("sub_{membership_id}"));
            world.publish(&told).await;
        }
        _ => {
            let kind = ["payment_failed", "payment_succeeded"][dice.below(2) as usize];
            let of = format!("in_{nth}_{}", dice.below(5));
            let at = format!("2026-03-10T0{}:00:00Z", dice.below(9));
            let mut told = invoice(&format!("evt_{source_version}"), kind, &of, &at);
            told.subscription_id = Some(format!("sub_{membership_id}"));
            world.publish(&told).await;
        }
    }
}
