"""A gym's whole roster, streamed in."""
import itertools
import time
from datetime import timedelta

from google.rpc import error_details_pb2
from gymflow.membership.v1 import service_pb2
from world import Refused, look, now, refused, same, story, until, wire


def part(**fields):
    return service_pb2.ImportRosterRequest(**fields)


def roster(gym, count, lacks=(), as_of=None, digest=None, parts=None, plan="gold"):
    """People m000… with a membership each, but for those it lacks."""
    header = {"gym_id": gym.id, "as_of": as_of or now()}
    header.update({"confirm_digest": digest} if digest else {})
    header.update({"parts": parts} if parts is not None else {})
    yield part(header=header)
    for number in range(count):
        if number in lacks:
            continue
        name = f"m{number:03}"
        yield part(member={"member_id": name, "email": f"{name}@example.com", "name": name,
                           "source_version": 1})
        yield part(membership={"membership_id": f"ms-{name}", "plan_id": plan, "member_ids": [name],
                               "starts_on": wire(gym.day(-40)), "source_version": 1,
                               "billing": gym.reference(f"sub_ms-{name}")})


def send(gym, requests):
    """Every answer."""
    return gym.town.send("ImportRoster", iter(list(requests)))


def applied(gym, requests):
    last = send(gym, requests)[-1]
    same(last.state, "applied")
    return last


def when_free(send_it):
    """The refusal, once the server has noticed that the stream before it is broken."""

    def look():
        try:
            return send_it()
        except Refused as refusal:
            return refusal if refusal.code != "ABORTED" else None

    return until("no other roster is being received", look)


def members(gym):
    return [one.member_id for one in gym.call("ListMembers", page_size=500).members]


def versions(gym):
    answer = gym.call("ListMemberVersions")
    return {one.member_id: one.version for one in answer.members}


@story
def a_roster_makes_what_is_not_held_and_tells_how_far_it_is(town):
    gym = town.gym()
    answers = send(gym, roster(gym, 60, parts=120))
    states = [answer.state for answer in answers]
    same(states, sorted(states, key=["receiving", "applying", "applied"].index))
    last = answers[-1]
    same((last.state, last.received, last.changed, last.unchanged), ("applied", 120, 120, 0))
    same(len(last.digest) > 20, True)
    same(len(members(gym)), 60)
    same([gym.state(who).allowed for who in ("m000", "m059")], [True, True])
    same(gym.state("m000").cause.kind, "import")


@story
def identical_rows_cost_no_event_and_no_version_and_differences_are_applied(town):
    gym = town.gym()
    applied(gym, roster(gym, 30))
    held = versions(gym)
    last = applied(gym, roster(gym, 30))
    same((last.changed, last.unchanged, versions(gym)), (0, 60, held))
    def other():
        for one in roster(gym, 30):
            if one.WhichOneof("part") == "membership" and one.membership.member_ids[0] == "m007":
                one.membership.plan_id = "silver"
            yield one

    last = applied(gym, other())
    same((last.changed, last.unchanged), (1, 59))
    after = versions(gym)
    same([who for who in held if after[who] != held[who]], ["m007"])
    same(look(gym.state("m007")).plans, ["silver"])


@story
def an_open_invoice_of_a_roster_is_a_debt(town):
    gym = town.gym()
    invoice = {"provider": "stripe", "account": gym.account, "kind": "payment_failed",
               "invoice_id": "in_1", "subscription_id": "sub_ms-m001", "amount_minor": 4_000,
               "amount_due_minor": 4_000, "currency": "GBP", "occurred_at": now()}
    whole = list(roster(gym, 3)) + [part(open_invoice=invoice)]
    applied(gym, whole)
    same([gym.state(f"m00{n}").allowed for n in range(3)], [True, False, True])
    # Left out it stays: only a provider or staff settle one.
    applied(gym, roster(gym, 3))
    same(gym.state("m001").allowed, False)
    gym.invoice("payment_succeeded", "in_1", of="ms-m001")
    same(gym.state("m001").allowed, True)
    same(applied(gym, whole).changed, 0)


@story
def few_who_are_missing_are_ended_and_come_back_with_a_later_roster(town):
    gym = town.gym()
    applied(gym, roster(gym, 40))
    last = applied(gym, roster(gym, 40, lacks=range(10)))
    same((last.missing, last.ending, last.allowed_missing), (10, 10, 10))
    same([gym.state(f"m0{n}").allowed for n in ("00", "09", "10")], [False, False, True])
    same(look(gym.state("m000")).reasons, ["membership_ended"])
    applied(gym, roster(gym, 40))
    same(gym.state("m000").allowed, True)


@story
def more_than_the_guard_allows_is_held_and_can_be_confirmed_by_its_digest(town):
    gym = town.gym()
    applied(gym, roster(gym, 40))
    held, as_of = versions(gym), now()
    lacks = range(11)
    last = send(gym, roster(gym, 40, lacks, as_of, plan="silver"))[-1]
    same((last.state, last.missing, last.allowed_missing), ("held", 11, 10))
    same(versions(gym), held)
    other = send(gym, roster(gym, 40, range(12), as_of, plan="silver"))[-1]
    assert other.digest != last.digest
    found = refused("FAILED_PRECONDITION", send, gym,
                    roster(gym, 40, range(12), as_of, last.digest, plan="silver"))
    reasons = {one.reason: dict(one.metadata) for one in found.details
               if isinstance(one, error_details_pb2.ErrorInfo)}
    assert other.digest in reasons["ROSTER_CHANGED"].values(), reasons
    same(versions(gym), held)
    confirmed = applied(gym, roster(gym, 40, lacks, as_of, last.digest, plan="silver"))
    same((confirmed.missing, confirmed.ending), (11, 11))
    same([gym.state(f"m0{n}").allowed for n in ("10", "11")], [False, True])
    same(look(gym.state("m011")).plans, ["silver"])


@story
def a_stream_that_breaks_changes_nothing(town):
    gym = town.gym()
    applied(gym, roster(gym, 5))
    held = versions(gym)

    def breaks():
        yield from itertools.islice(roster(gym, 9, plan="silver"), 12)
        raise RuntimeError("the sender dies")

    try:
        gym.town.send("ImportRoster", breaks())
        raise AssertionError("a broken stream was applied")
    except AssertionError as error:
        assert "RuntimeError" in str(error) or "iterating" in str(error), error

    def stalls():
        yield from itertools.islice(roster(gym, 9, plan="silver"), 12)
        time.sleep(1.5)

    code = when_free(lambda: gym.town.send("ImportRoster", stalls(), timeout=0.7))
    same(code.code, "DEADLINE_EXCEEDED")
    for parts in (17, 19):
        found = when_free(lambda: send(gym, roster(gym, 9, parts=parts, plan="silver")))
        same((found.code, found.fields), ("INVALID_ARGUMENT", ["messages[0].header.parts"]))
    same((versions(gym), members(gym)), (held, [f"m00{n}" for n in range(5)]))


@story
def a_fault_in_a_roster_names_the_message_and_the_field_and_nothing_is_changed(town):
    gym = town.gym()
    good = list(roster(gym, 2))

    def wrong(*requests):
        found = refused("INVALID_ARGUMENT", send, gym, requests)
        assert found.fields, found
        return found.fields

    same(wrong(good[1]), ["messages[0].header"])
    same(wrong(good[0], part()), ["messages[1].part"])
    same(wrong(*good[:2], good[0]), ["messages[2].header"])
    same(wrong(good[0], part(member={"member_id": "a b", "email": "x"})),
         ["messages[1].member.member_id", "messages[1].member.email"])
    bad = part(membership={"membership_id": "", "plan_id": "p", "member_ids": ["ok", "a b"],
                           "starts_on": "x"})
    same(wrong(*good, bad), ["messages[5].membership.membership_id",
                             "messages[5].membership.member_ids[1]",
                             "messages[5].membership.starts_on"])
    same(wrong(*good, good[1])[0].startswith("messages[5]"), True)
    invoice = part(open_invoice={"provider": "stripe", "account": "acct_x", "kind": "mandate_failed"})
    assert all(name.startswith("messages[5].open_invoice.") for name in wrong(*good, invoice))
    nobodys = part(membership={"membership_id": "x", "plan_id": "p", "member_ids": ["nobody"],
                               "starts_on": wire(gym.today), "source_version": 1})
    same(wrong(*good, nobodys), ["messages[5].membership.member_ids[0]"])
    future = now() + timedelta(hours=1)
    same(wrong(*roster(gym, 2, as_of=future)), ["messages[0].header.as_of"])
    same(members(gym), [])
    gym.id = "g-nobodys"
    refused("NOT_FOUND", send, gym, roster(gym, 1))


@story
def what_was_written_after_a_roster_was_true_stays_as_it_is(town):
    gym = town.gym()
    as_of = now()
    gym.with_ann()
    last = applied(gym, roster(gym, 3, as_of=as_of))
    same((last.missing, gym.state().allowed), (0, True))
    gym.call("PutMember", member_id="m001", name="Newer", source_version=9)
    last = applied(gym, roster(gym, 3, as_of=as_of))
    same((last.left_alone, gym.get("m001").name), (1, "Newer"))
