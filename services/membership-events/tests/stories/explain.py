"""Why somebody is, was or will be let in, at any instant."""
from datetime import timedelta

from world import days, look, moment, now, refused, same, story

SECOND = timedelta(seconds=1)


@story
def an_explanation_says_what_holds_since_when_and_by_which_causes(town):
    gym = town.gym().with_ann()
    event = gym.fails("in_1")
    gym.pause("p", gym.day(-1), behind="staff:u_4")
    told = gym.explain()
    same((look(told.state).reasons, told.state), (["missed_payment", "membership_paused"], gym.state()))
    same(told.since, told.state.decided_at)
    same(
        [(cause.kind, cause.id, cause.actor) for cause in told.causes],
        [
            ("call", "PauseMembership", "staff:u_4"),
            ("billing_event", f"stripe/{gym.account}/{event.event_id}", "provider:stripe"),
        ],
    )
    for cause in told.causes:
        assert abs(moment(cause.received_at) - now()) < timedelta(minutes=1)


@story
def the_past_is_told_as_it_was_decided(town):
    gym = town.gym()
    gym.with_ann()
    seen = [gym.state()]
    for change in (
        lambda: gym.fails("in_1"),
        lambda: gym.invoice("payment_succeeded", "in_1", reason="invoice_paid"),
        lambda: gym.pause("p", gym.day(-1)),
        lambda: gym.resume(),
        lambda: gym.cancel(),
    ):
        change()
        seen.append(gym.state())
    for state, following in zip(seen, seen[1:]):
        at = moment(state.decided_at)
        same(gym.then(at), state)
        between = at + (moment(following.decided_at) - at) / 2
        same(gym.then(between), state)
    first = moment(seen[0].decided_at)
    wrong = refused("NOT_FOUND", gym.explain, first - SECOND)
    assert "the first decision about the member was made at" in wrong.message, wrong


@story
def what_is_to_come_is_told_of_the_facts_held_now(town):
    gym = town.gym(overdue_grace=timedelta(days=3))
    gym.with_ann(ends_on=gym.day(60), next_plan={"plan_id": "silver", "from": gym.day(20)})
    gym.pause("p", gym.day(5), gym.day(8))
    at = now()
    gym.fails("in_1", at=at)
    version = gym.state().version

    def then(count):
        state = gym.then(gym.begins(gym.day(count)))
        same(state.version, version)
        return look(state)

    same((then(1).allowed, then(1).status), (True, "overdue"))
    same((then(4).allowed, then(4).reasons), (False, ["missed_payment"]))
    same(then(6).reasons, ["missed_payment", "membership_paused"])
    same(then(9).reasons, ["missed_payment"])
    gym.invoice("payment_succeeded", "in_1")
    version = gym.state().version
    same([then(count).allowed for count in (4, 5, 7, 8)], [True, False, False, True])
    same((then(19).plans, then(20).plans, then(61).status), (["gold"], ["silver"], "ended"))
    told = gym.explain(gym.begins(gym.day(6)))
    same((moment(told.since), told.causes[0].kind), (gym.begins(gym.day(5)), "timer"))


@story
def an_explanation_reaches_thirteen_months_back_and_five_years_ahead(town):
    gym = town.gym().with_ann()
    wrong = refused("OUT_OF_RANGE", gym.explain, now() - days(400))
    same(wrong.fields, ["at"])
    assert "13 months" in wrong.message
    refused("NOT_FOUND", gym.explain, now() - days(390))
    assert gym.then(now() + days(5 * 365)).allowed
    same(refused("INVALID_ARGUMENT", gym.explain, now() + days(5 * 366 + 2)).fields, ["at"])


@story
def who_was_never_decided_about_or_is_not_known_is_not_found(town):
    gym = town.gym()
    same(refused("NOT_FOUND", gym.explain, member="bob").message, "the member is not known")
    gym.member("bob")
    found = refused("NOT_FOUND", gym.explain, member="bob")
    assert "nothing has been decided" in found.message, found
