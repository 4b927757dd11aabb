"""Money taken at the desk, and debts written off."""
from datetime import timedelta

from world import look, now, refused, same, story

HOUR = timedelta(hours=1)


def pay(gym, payment, amount, invoice=None, currency="GBP", membership="ms", **more):
    return gym.call("RecordPayment", membership_id=membership, payment_id=payment,
                    invoice_id=invoice, amount_minor=amount, currency=currency,
                    received_at=now(), **more)


def forgive(gym, invoice, forgiveness="f1", **more):
    return gym.call("ForgiveInvoice", membership_id="ms", invoice_id=invoice,
                    forgiveness_id=forgiveness, reason="moved house", **more)


def open_invoices(gym):
    return [one.invoice_id for one in gym.get().open_invoices]


@story
def a_payment_without_an_invoice_named_goes_to_the_oldest_open_one(town):
    gym = town.gym().with_ann()
    gym.fails("in_2", at=now() - HOUR)
    gym.fails("in_1", at=now() - 3 * HOUR)
    gym.fails("in_3", at=now() - 2 * HOUR)
    same(open_invoices(gym), ["in_1", "in_3", "in_2"])
    answer = pay(gym, "cash_1", 4_000)
    same((answer.applied, answer.source_version), (True, 0))
    same(open_invoices(gym), ["in_3", "in_2"])
    pay(gym, "cash_2", 4_000)
    pay(gym, "cash_3", 4_000)
    same((open_invoices(gym), gym.state().allowed), ([], True))


@story
def a_payment_counts_for_the_invoice_it_names(town):
    gym = town.gym().with_ann()
    gym.fails("in_1", at=now() - 3 * HOUR)
    gym.fails("in_2", at=now() - HOUR)
    pay(gym, "cash_1", 4_000, "in_2")
    same(open_invoices(gym), ["in_1"])
    # It may come before the invoice is known to have failed.
    pay(gym, "cash_2", 4_000, "in_3")
    gym.fails("in_3", at=now() - 2 * HOUR)
    same(open_invoices(gym), ["in_1"])


@story
def a_part_taken_at_the_desk_and_a_part_from_the_provider_settle_together(town):
    gym = town.gym().with_ann()
    gym.fails("in_1", at=now() - HOUR)
    pay(gym, "cash_1", 1_000)
    gym.invoice("payment_succeeded", "in_1", 2_999, payment_id="pay_1")
    same(look(gym.state()).status, "overdue")
    pay(gym, "cash_2", 1)
    same(look(gym.state()).status, "active")


@story
def a_payment_that_is_recorded_twice_counts_once(town):
    gym = town.gym().with_ann()
    gym.fails("in_1", at=now() - 2 * HOUR)
    gym.fails("in_2", at=now() - HOUR)
    for _ in range(3):
        assert pay(gym, "cash_1", 4_000).applied, "a fact is never stale"
    same(open_invoices(gym), ["in_2"])
    gym2 = town.gym().with_ann()
    gym2.fails("in_1")
    for _ in range(3):
        pay(gym2, "half", 2_000, "in_1")
    same(open_invoices(gym2), ["in_1"])


@story
def a_payment_of_any_amount_counts(town):
    gym = town.gym().with_ann()
    gym.fails("in_1", amount_due_minor=2**63 - 1)
    pay(gym, "cash_1", 2**63 - 2, "in_1")
    assert not gym.state().allowed
    pay(gym, "cash_2", 2**63 - 1, "in_1")
    assert gym.state().allowed


@story
def a_payment_in_another_currency_is_refused(town):
    gym = town.gym().with_ann()
    gym.fails("in_1")
    found = refused("FAILED_PRECONDITION", pay, gym, "cash_1", 4_000, currency="EUR")
    same((found.fields, "GBP" in found.message), (["currency"], True))
    assert pay(gym, "cash_1", 4_000, currency="gbp").applied
    assert gym.state().allowed


@story
def a_forgiven_invoice_is_no_debt_any_more_and_the_others_are(town):
    gym = town.gym().with_ann()
    gym.fails("in_1", at=now() - 2 * HOUR)
    gym.fails("in_2", at=now() - HOUR)
    for _ in range(2):
        same(forgive(gym, "in_1", actor="staff:u_7").applied, True)
    same((open_invoices(gym), look(gym.state()).status), (["in_2"], "overdue"))
    forgive(gym, "in_2", "f2", actor="staff:u_7")
    same((open_invoices(gym), gym.state().allowed), ([], True))
    cause = gym.state().cause
    same((cause.kind, cause.id, cause.actor), ("call", "ForgiveInvoice", "staff:u_7"))
    # What the provider forgave counts as well, and a try in vain opens nothing again.
    gym.fails("in_1", at=now())
    gym.fails("in_3", at=now() - HOUR)
    gym.bill("invoice_forgiven", invoice_id="in_3")
    same(open_invoices(gym), [])


@story
def whoever_stands_behind_the_call_is_on_its_record(town):
    gym = town.gym().with_ann()
    gym.fails("in_1")
    pay(gym, "cash_1", 4_000, behind="staff:u_9")
    same(gym.state().cause.actor, "staff:u_9")
    gym.pause("p", gym.day(-1))
    same(gym.state().cause.actor, "service:stories")
