"""The ledger: what opens a debt, what settles it, and from when it counts."""
from datetime import timedelta

from world import look, moment, now, same, story, until, waits

HOUR = timedelta(hours=1)


@story
def a_failed_payment_closes_at_once_and_a_paid_one_opens_at_once(town):
    gym = town.gym().with_ann()
    gym.fails("in_1")
    state = gym.state()
    same((state.allowed, look(state).status), (False, "overdue"))
    same(look(state).reasons, ["missed_payment"])
    gym.invoice("payment_succeeded", "in_1", payment_id="pay_1")
    same((gym.state().allowed, look(gym.state()).status), (True, "active"))


@story
def part_payments_settle_only_when_together_they_cover_what_is_due(town):
    gym = town.gym().with_ann()
    gym.fails("in_1", at=now() - 3 * HOUR)
    gym.invoice("payment_succeeded", "in_1", 1_500, payment_id="pay_1")
    gym.invoice("payment_succeeded", "in_1", 1_500, payment_id="pay_1")
    gym.invoice("payment_succeeded", "in_1", 2_400, payment_id="pay_2")
    same(look(gym.state()).status, "overdue")
    gym.invoice("payment_succeeded", "in_1", 100, payment_id="pay_3")
    same(look(gym.state()).status, "active")


@story
def what_was_reversed_does_not_count_towards_what_is_due(town):
    gym = town.gym().with_ann()
    gym.fails("in_1", at=now() - 5 * HOUR)
    gym.invoice("payment_succeeded", "in_1", 3_000, now() - 4 * HOUR, payment_id="pay_1")
    gym.invoice("payment_reversed", "in_1", 3_000, now() - 3 * HOUR, payment_id="pay_1")
    gym.invoice("payment_succeeded", "in_1", 1_000, now() - 2 * HOUR, payment_id="pay_2")
    same(look(gym.state()).status, "overdue")
    gym.invoice("payment_succeeded", "in_1", 3_000, now() - HOUR, payment_id="pay_3")
    same(look(gym.state()).status, "active")


@story
def a_chargeback_undoes_its_own_payment_and_opens_the_debt(town):
    gym = town.gym().with_ann()
    for number in (1, 2):
        gym.invoice("payment_succeeded", f"in_{number}", at=now() - 3 * HOUR,
                    payment_id=f"pay_{number}", amount_due_minor=4_000)
    assert gym.state().allowed
    gym.invoice("payment_reversed", "in_1", payment_id="pay_1")
    same(look(gym.state()).reasons, ["missed_payment"])
    same([one.invoice_id for one in gym.get().open_invoices], ["in_1"])
    gym.invoice("payment_succeeded", "in_1", at=now(), payment_id="pay_3")
    assert gym.state().allowed


@story
def a_refund_opens_no_debt(town):
    gym = town.gym().with_ann()
    gym.fails("in_1", at=now() - 3 * HOUR)
    gym.invoice("payment_succeeded", "in_1", at=now() - 2 * HOUR, payment_id="pay_1")
    gym.invoice("payment_refunded", "in_1", payment_id="pay_1")
    gym.bill("payment_refunded", payment_id="pay_0", amount_minor=4_000, currency="GBP")
    same((gym.state().allowed, look(gym.state()).status), (True, "active"))


@story
def an_invoice_that_the_provider_holds_paid_is_settled_whatever_its_amount(town):
    gym = town.gym().with_ann()
    gym.fails("in_1")
    gym.invoice("payment_succeeded", "in_1", 0, reason="invoice_paid")
    assert gym.state().allowed


@story
def facts_come_to_the_same_in_any_order_and_any_number(town):
    at = now()
    says = [
        ("payment_failed", 4_000, at - 4 * HOUR, "pay_1"),
        ("payment_succeeded", 4_000, at - 3 * HOUR, "pay_1"),
        ("payment_reversed", 4_000, at - 2 * HOUR, "pay_1"),
        ("payment_succeeded", 4_000, at - HOUR, "pay_2"),
    ]
    for order in ([0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1, 2, 0]):
        gym = town.gym().with_ann()
        for index in order:
            kind, amount, when, payment = says[index]
            gym.invoice(kind, "in_1", amount, when, payment_id=payment)
        same((order, look(gym.state()).status), (order, "active"))
        assert not gym.get().open_invoices
    gym = town.gym().with_ann()
    event = gym.fails("in_1")
    version = gym.state().version
    gym.say(event)
    same(gym.state().version, version)


@story
def without_invoices_the_latest_state_of_a_payment_by_the_providers_time_decides(town):
    gym = town.gym()
    gym.put(billing_accounts=[{"provider": "gocardless", "account": gym.account}])
    gym.with_ann(billing={**gym.reference("sub_ms"), "provider": "gocardless"})
    at = now() - 9 * HOUR

    def says(kind, hours):
        gym.bill(kind, at + hours * HOUR, provider="gocardless", payment_id="PM1")
        return gym.state().allowed

    same(says("payment_failed", 1), False)
    same(says("payment_succeeded", 3), True)
    # A try in vain before that, heard of late.
    same(says("payment_failed", 2), True)
    # A late failure, after it was paid.
    same(says("payment_reversed", 4), False)
    same(says("payment_succeeded", 5), True)


@story
def a_mandate_that_fails_closes_nothing_by_itself(town):
    gym = town.gym()
    gym.with_ann(billing={**gym.reference("sub_ms"), "mandate_id": "MD1"})
    gym.bill("mandate_failed", mandate_id="MD1")
    same((gym.state().allowed, look(gym.state()).status), (True, "active"))


@story
def a_cancelled_subscription_ends_the_membership_while_it_is_the_current_one(town):
    gym = town.gym().with_ann()
    gym.bill("payment_failed", invoice_id="in_1", amount_minor=4_000)
    gym.join("ms", "ann", billing=gym.reference("sub_new"))
    gym.bill("subscription_cancelled")
    same(look(gym.state()).status, "overdue")
    gym.bill("invoice_forgiven", invoice_id="in_1")
    assert gym.state().allowed, "a former subscription ends nothing, and its debts stay"
    gym.bill("subscription_cancelled", of="new")
    same(look(gym.state()).status, "ended")


@story
def grace_counts_from_the_oldest_open_invoice(town):
    gym = town.gym(overdue_grace=timedelta(days=2)).with_ann()
    oldest, younger = now() - 47 * HOUR, now() - 30 * HOUR
    gym.fails("in_2", at=younger)
    gym.fails("in_1", at=oldest)
    state = gym.state()
    same((state.allowed, look(state).status, look(state).why), (True, "overdue", []))
    closes = oldest + timedelta(days=2)
    same(abs(moment(state.changes_at) - closes) < timedelta(milliseconds=1), True)
    same(gym.then(closes + HOUR / 60).allowed, False)
    gym.invoice("payment_succeeded", "in_1")
    closes = younger + timedelta(days=2)
    same([gym.then(at).allowed for at in (closes - HOUR / 60, closes + HOUR / 60)], [True, False])
    gym.fails("in_0", at=now() - 49 * HOUR)
    same(look(gym.state()).reasons, ["missed_payment"])


@story
def a_retry_in_vain_does_not_begin_the_grace_anew(town):
    gym = town.gym(overdue_grace=timedelta(days=2)).with_ann()
    gym.fails("in_1", at=now() - 49 * HOUR)
    assert not gym.state().allowed
    gym.fails("in_1", at=now() - HOUR, attempt_count=2)
    same(look(gym.state()).reasons, ["missed_payment"])


@story
@waits
def access_closes_by_itself_when_the_grace_runs_out(town):
    gym = town.gym(overdue_grace=timedelta(seconds=2)).with_ann()
    gym.fails("in_1")
    state = gym.state()
    same((state.allowed, look(state).status), (True, "overdue"))
    closed = until("the grace runs out", lambda: not gym.state().allowed and gym.state())
    same((closed.cause.kind, closed.cause.actor), ("timer", "time"))
    same(moment(closed.decided_at) >= moment(state.changes_at), True)
    gym.until_published(closed.version)


@story
def a_gym_that_changes_its_grace_decides_anew_about_everybody(town):
    gym = town.gym().with_ann()
    gym.fails("in_1", at=now() - HOUR)
    assert not gym.state().allowed
    gym.put(overdue_grace=timedelta(days=1))
    assert gym.state().allowed
    gym.put()
    assert not gym.state().allowed
