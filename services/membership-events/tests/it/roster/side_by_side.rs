//! A roster beside what else is known, an import beside others, and in a process that stops, dies or is in a hurry.

use super::*;

on_both! {
    async fn what_was_written_after_the_roster_is_left_as_it_is(world: World) {
        world.put_gym(|_| {}).await;
        applied(world, whole(AS_OF, roster(0..3))).await;
        // Since: a newer plan, a new member, and a pause of somebody whom the roster lacks.
        world.put_membership("ms_m_000000", &name(0), |put| put.plan_id = "silver".into()).await;
        world.put_member("new").await;
        world.put_membership("ms_new", "new", |_| {}).await;
        let pause = wire::PauseMembershipRequest {
            gym_id: GYM.into(),
            membership_id: "ms_m_000002".into(),
            pause_id: "p1".into(),
            from: "2026-04-01".into(),
            until: None,
            source_version: 1,
        };
        world.client().pause_membership(pause).await.expect("a pause");
        world.until("a timer", &name(2), |state| state.changes_at.is_some()).await;
        let held = versions(world).await;
        let last = applied(world, whole(AS_OF, roster(0..2))).await;
        assert_eq!((last.missing, last.changed, last.left_alone), (0, 0, 1));
        assert_eq!(versions(world).await, held);
        // A roster of later on knows better.
        world.clock.set(at("2026-03-10T14:00:00Z"));
        let last = applied(world, whole("2026-03-10T13:00:00Z", roster(0..2))).await;
        assert_eq!((last.missing, last.left_alone), (2, 1));
        world.until_allowed("new", false).await;
        world.until_allowed(&name(2), false).await;
    }

    async fn an_open_invoice_closes_the_door_and_its_providers_event_opens_it(world: World) {
        world.put_gym(|_| {}).await;
        let open = || {
            let at = "2026-03-09T05:00:00Z";
            Part::OpenInvoice(BillingEvent {
                subscription_id: Some("sub_ms_m_000001".into()),
                ..invoice("", "", "in_1", at)
            })
        };
        // Of a new member: there is no moment in which the door is open.
        let last = applied(world, whole(AS_OF, [open()].into_iter().chain(roster(0..2)))).await;
        assert_eq!(last.changed, 5);
        let closed = world.until_allowed(&name(1), false).await;
        assert_eq!(closed.reasons, ["missed_payment"]);
        let debts = state_of(world, &name(1)).await.open_invoices;
        assert_eq!(debts.len(), 1);
        assert_eq!(debts[0].invoice_id, "in_1");
        let stream = world.bus.jetstream().get_stream("MEMBERSHIP").await.expect("a stream");
        let subject = format!("membership.v1.{GYM}.{}", name(1));
        let first = stream.direct_get_first_for_subject(&subject).await.expect("a message");
        let first: wire::MembershipStatusChanged =
            serde_json::from_slice(&first.payload).expect("a state");
        assert_eq!(first.version, closed.version);
        world.until_allowed(&name(0), true).await;

        // Said again, and by the provider itself: still one debt, and no news.
        let again = applied(world, whole(AS_OF, roster(0..2).chain([open()]))).await;
        assert_eq!((again.changed, again.unchanged), (0, 5));
        let said = |id: &str, kind: &str, at: &str| BillingEvent {
            subscription_id: Some("sub_ms_m_000001".into()),
            ..invoice(id, kind, "in_1", at)
        };
        world.publish(&said("evt_1", "payment_failed", "2026-03-09T05:00:00Z")).await;
        world.until_billing_is_quiet().await;
        assert_eq!(state_of(world, &name(1)).await.open_invoices.len(), 1);
        assert_eq!(world.published(&name(1)).await.expect("a state").version, closed.version);
        world.publish(&said("evt_2", "payment_succeeded", "2026-03-10T05:00:00Z")).await;
        world.until_allowed(&name(1), true).await;
        assert!(state_of(world, &name(1)).await.open_invoices.is_empty());

        // What has been paid since stays paid, and what a roster leaves out stays open.
        let late = applied(world, whole(AS_OF, roster(0..2).chain([open()]))).await;
        assert_eq!((late.changed, late.left_alone), (0, 0));
        let mut owes = said("evt_3", "payment_failed", "2026-03-10T06:00:00Z");
        owes.invoice_id = Some("in_2".into());
        world.publish(&owes).await;
        world.until_allowed(&name(1), false).await;
        applied(world, whole(AS_OF, roster(0..2))).await;
        assert_eq!(state_of(world, &name(1)).await.open_invoices.len(), 1);
    }

    async fn an_erased_member_of_a_roster_stays_erased(world: World) {
        world.put_gym(|_| {}).await;
        applied(world, whole(AS_OF, roster(0..2))).await;
        let delete = wire::DeleteMemberRequest { gym_id: GYM.into(), member_id: name(1) };
        world.client().delete_member(delete).await.expect("deleted");
        let last = world.until("erased", &name(1), |state| state.erased).await;
        let told = applied(world, whole(AS_OF, roster(0..2))).await;
        assert_eq!((told.changed, told.left_alone), (0, 1));
        let member = state_of(world, &name(1)).await;
        assert!(member.erased);
        assert_eq!(world.published(&name(1)).await.expect("a state").version, last.version);
        // Nobody is missing by it, either.
        let told = applied(world, whole(AS_OF, roster(0..1))).await;
        assert_eq!(told.missing, 0);
    }

    async fn one_roster_at_a_time_in_each_gym(world: World) {
        world.put_gym(|_| {}).await;
        let (parts, mut queue) = tokio::sync::mpsc::channel(10);
        let sent = stream::poll_fn(move |cx| queue.poll_recv(cx));
        for request in requests(whole(AS_OF, roster(0..1))) {
            parts.send(request).await.expect("sent");
        }
        let mut answers = world.client().import_roster(sent).await.expect("open").into_inner();
        let second = import(world, whole(AS_OF, roster(0..2))).await.expect_err("one at a time");
        assert_eq!(second.code(), Code::Aborted);
        drop(parts);
        let mut last = None;
        while let Some(answer) = answers.message().await.expect("an answer") {
            last = Some(answer.state);
        }
        assert_eq!(last.as_deref(), Some("applied"));
        applied(world, whole(AS_OF, roster(0..2))).await;
    }

    async fn an_import_that_another_process_took_goes_no_further(world: World) {
        world.put_gym(|_| {}).await;
        applied(world, whole(AS_OF, roster(0..3))).await;
        let held = versions(world).await;
        let (parts, mut answers) = open_import(world, roster(0..1)).await;
        let store = world.store().await;
        // As if this process had slept for longer than its claim holds.
        let sql = "update roster_imports set claimed_until = 1 where state = 'receiving'";
        store.reads().execute_unprepared(sql).await.expect("taken");
        let refused = loop {
            match answers.message().await {
                Ok(Some(told)) => assert_eq!(told.state, "receiving"),
                Ok(None) => panic!("no last word"),
                Err(refused) => break refused,
            }
        };
        assert_eq!(refused.code(), Code::Unavailable);
        until_nothing_is_staged(world).await;
        drop(parts);
        assert_eq!(versions(world).await, held);
        eventually("the next one has its turn", Duration::from_secs(20), async || {
            import(world, whole(AS_OF, roster(0..3))).await.is_ok()
        })
        .await;
    }

    async fn a_service_that_stops_while_it_receives_changes_nothing(world: World) {
        world.put_gym(|_| {}).await;
        applied(world, whole(AS_OF, roster(0..3))).await;
        let held = versions(world).await;
        let (parts, mut answers) = open_import(world, roster(0..1)).await;
        let reading = tokio::spawn(async move {
            loop {
                match answers.message().await {
                    Ok(Some(_)) => {}
                    other => return other,
                }
            }
        });
        world.stop_all().await;
        let ended = reading.await.expect("no panic");
        assert_eq!(ended.expect_err("it says so").code(), Code::Unavailable);
        drop(parts);
        world.start_replica().await;
        assert_eq!(versions(world).await, held);
        let store = world.store().await;
        assert_eq!(count(&store, "roster_rows").await, 0);
        assert_eq!(count(&store, "roster_imports").await, 1);
    }

    async fn an_import_that_was_killed_goes_on_where_it_stood(world: World) {
        world.put_gym(|_| {}).await;
        world.stop_all().await;
        world.start_process().await;
        wait_for_it(world).await;
        let members = 1_500;
        let mut client = world.client();
        let sent = stream::iter(requests(whole(AS_OF, roster(0..members))));
        let mut answers = client.import_roster(sent).await.expect("open").into_inner();
        let store = world.store().await;
        let some = "members where version > 0";
        let reading = async {
            eventually("some are applied", Duration::from_secs(60), async || {
                count(&store, some).await > 100
            })
            .await;
        };
        let told = async { while let Ok(Some(_)) = answers.message().await {} };
        tokio::select! {
            () = reading => {}
            () = told => panic!("it was over before it was killed"),
        }
        world.kill_process().await;
        let done = count(&store, some).await;
        assert!(done < members as i64, "{done} were applied");
        world.start_process().await;
        eventually("all are applied", Duration::from_secs(60), async || {
            count(&store, "roster_imports where state = 'applied'").await == 1
        })
        .await;
        assert_eq!(count(&store, some).await, members as i64);
        for n in [0, members / 2, members - 1] {
            world.until_allowed(&name(n), true).await;
        }
        // Everybody once: what was committed was not done again.
        eventually("all are published", Duration::from_secs(60), async || {
            published(world).await >= members as u64
        })
        .await;
        until_nothing_is_staged(world).await;
    }

    async fn a_stream_whose_process_died_changes_nothing(world: World) {
        world.put_gym(|_| {}).await;
        applied(world, whole(AS_OF, roster(0..3))).await;
        world.stop_all().await;
        world.start_process().await;
        wait_for_it(world).await;
        let (parts, mut queue) = tokio::sync::mpsc::channel(1_000);
        let sent = stream::poll_fn(move |cx| queue.poll_recv(cx));
        for request in requests(whole(AS_OF, roster(10..300))) {
            parts.send(request).await.expect("sent");
        }
        let answers = world.client().import_roster(sent).await.expect("open");
        let store = world.store().await;
        eventually("some is staged", Duration::from_secs(20), async || {
            count(&store, "roster_rows").await > 0
        })
        .await;
        world.kill_process().await;
        drop(answers);
        world.start_process().await;
        until_nothing_is_staged(world).await;
        eventually("it is forgotten", Duration::from_secs(20), async || {
            count(&store, "roster_imports where state <> 'applied'").await == 0
        })
        .await;
        assert_eq!(count(&store, "members").await, 3);
        for n in 0..3 {
            world.until_allowed(&name(n), true).await;
        }
    }

    async fn a_payment_that_fails_during_a_large_import_closes_its_door_at_once(world: World) {
        world.put_gym(|_| {}).await;
        world.put_member("ann").await;
        world.put_membership("ms", "ann", |_| {}).await;
        let members = 5_000;
        let ann = [
            member("ann"),
            Part::Membership(wire::PutMembershipRequest {
                membership_id: "ms".into(),
                billing: world.membership("ms", "ann").billing,
                ..membership("ann")
            }),
        ];
        let sent = stream::iter(requests(
            std::iter::once(header(AS_OF)).chain(ann).chain(roster(0..members)),
        ));
        let mut answers = world.client().import_roster(sent).await.expect("open").into_inner();
        let mut states: Vec<wire::ImportRosterProgress> = Vec::new();
        let mut closed_at = None;
        while let Some(told) = answers.message().await.expect("an answer") {
            if told.state == "applying" && told.changed > members as i64 && closed_at.is_none() {
                let failed = invoice("evt_1", "payment_failed", "in_1", "2026-03-10T05:00:00Z");
                world.publish(&failed).await;
                world.until_allowed("ann", false).await;
                closed_at = Some(states.len());
            }
            states.push(told);
        }
        let last = states.last().expect("an answer");
        assert_eq!((last.state.as_str(), last.received), ("applied", 2 * members as i64 + 2));
        assert_eq!((last.changed, last.unchanged), (2 * members as i64, 2));
        assert!(states.iter().filter(|told| told.state == "receiving").count() > 3, "{states:?}");
        // It did not wait for the import.
        let closed_at = closed_at.expect("the import was seen while it was applied");
        let after = states[closed_at..].iter().filter(|told| told.state == "applying");
        assert!(after.count() > 1, "{states:?}");
        assert_eq!(versions(world).await.len(), members + 1);
        world.until_allowed(&name(members - 1), true).await;
        world.until_allowed("ann", false).await;
    }
}

/// An import of which this much is staged, with more to come.
async fn open_import(
    world: &World,
    parts: impl Iterator<Item = Part>,
) -> (
    tokio::sync::mpsc::Sender<wire::ImportRosterRequest>,
    tonic::Streaming<wire::ImportRosterProgress>,
) {
    let (sender, mut queue) = tokio::sync::mpsc::channel(100);
    let sent = stream::poll_fn(move |cx| queue.poll_recv(cx));
    for request in requests(whole(AS_OF, parts)) {
        sender.send(request).await.expect("sent");
    }
    let answers = world.client().import_roster(sent).await;
    let answers = answers.expect("open").into_inner();
    let store = world.store().await;
    eventually("some is staged", Duration::from_secs(20), async || {
        count(&store, "roster_rows").await > 0
    })
    .await;
    (sender, answers)
}

/// The program is up when it answers.
async fn wait_for_it(world: &World) {
    let mut client = world.client();
    eventually("the program is up", Duration::from_secs(20), async || {
        let request = wire::ListMemberVersionsRequest {
            gym_id: GYM.into(),
            page_size: 1,
            page_token: String::new(),
        };
        client.list_member_versions(request).await.is_ok()
    })
    .await;
}
