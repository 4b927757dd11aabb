"""What staff decide about one person, for a while."""
from datetime import timedelta

from world import days, look, moment, now, refused, same, story, until, waits


def put(gym, kind, ends=None, override="o1", member="ann", **more):
    more.setdefault("reason", "says she paid")
    more.setdefault("actor", "staff:u_1")
    return gym.call("PutOverride", member_id=member, override_id=override, kind=kind,
                    until=ends or now() + days(2), **more)


@story
def an_override_lets_one_in_despite_debt_and_pause(town):
    gym = town.gym()
    gym.member("bob")
    gym.with_ann()
    gym.join("his", "ann", "bob")
    gym.fails("in_1")
    gym.fails("in_2", of="his")
    gym.pause("p", gym.day(-1))
    ends = now() + days(2)
    put(gym, "let_in", ends)
    state = gym.state()
    same((state.allowed, look(state).reasons), (True, ["let_in_by_staff"]))
    same(abs(moment(state.plans[0].valid_until) - ends) < timedelta(milliseconds=1), True)
    same((state.cause.kind, state.cause.actor), ("override", "staff:u_1"))
    same(gym.state("bob").allowed, False)
    same([gym.then(ends - days(1)).allowed, gym.then(ends + days(1)).allowed], [True, False])


@story
def an_override_lets_nobody_into_what_has_not_begun_or_is_over(town):
    gym = town.gym()
    gym.with_ann(starts_on=gym.day(3))
    put(gym, "let_in")
    same(gym.state().allowed, False)
    gym.join("ms", "ann", ends_on=gym.day(-3))
    same(look(gym.state()).reasons, ["membership_ended"])


@story
def an_override_bars_one_who_would_get_in(town):
    gym = town.gym()
    gym.member("bob")
    gym.with_ann()
    gym.join("ms", "ann", "bob")
    put(gym, "let_in", override="o2")
    put(gym, "bar")
    state = gym.state()
    same((state.allowed, look(state).reasons, look(state).plans), (False, ["barred_by_staff"], []))
    assert gym.state("bob").allowed
    gym.call("ClearOverride", member_id="ann", override_id="o1", actor="staff:u_2")
    state = gym.state()
    same((state.allowed, state.cause.kind, state.cause.actor), (True, "override", "staff:u_2"))


@story
@waits
def an_override_ends_by_itself(town):
    gym = town.gym().with_ann()
    put(gym, "bar", now() + timedelta(seconds=2))
    same(look(gym.state()).reasons, ["barred_by_staff"])
    state = until("the bar ends", lambda: gym.state().allowed and gym.state())
    same(state.cause.kind, "timer")
    gym.fails("in_1")
    put(gym, "let_in", now() + timedelta(seconds=2), "o2")
    assert gym.state().allowed
    state = until("the letting in ends", lambda: not gym.state().allowed and gym.state())
    same((state.cause.kind, look(state).reasons), ("timer", ["missed_payment"]))


@story
def an_override_lasts_seven_days_at_most(town):
    gym = town.gym().with_ann()
    put(gym, "bar", now() + days(7))
    for ends in (now() + days(7) + timedelta(minutes=2), now() - timedelta(seconds=1)):
        same(refused("INVALID_ARGUMENT", put, gym, "bar", ends).fields, ["until"])


@story
def an_override_is_repeated_edited_and_cleared_by_its_id(town):
    gym = town.gym().with_ann()
    ends = now() + days(1)
    put(gym, "bar", ends)
    version = gym.state().version
    put(gym, "bar", ends)
    same(gym.state().version, version)
    put(gym, "bar", ends + days(1))
    assert not gym.then(ends + timedelta(hours=1)).allowed
    put(gym, "let_in", ends)
    assert gym.state().allowed
    for _ in range(2):
        answer = gym.call("ClearOverride", member_id="ann", override_id="o1")
        same((answer.applied, answer.source_version), (True, 0))
    same(look(gym.state()).reasons, [])
    found = refused("NOT_FOUND", put, gym, "bar", member="bob")
    same(found.message, "the member is not known")


@story
def an_override_that_was_cleared_stays_cleared(town):
    gym = town.gym().with_ann()
    put(gym, "bar")
    gym.call("ClearOverride", member_id="ann", override_id="o1")
    gym.call("ClearOverride", member_id="ann", override_id="o2")
    version = gym.state().version
    for override in ("o1", "o2"):
        same(put(gym, "bar", override=override).applied, False)
    same((gym.state().allowed, gym.state().version), (True, version))
    same(put(gym, "bar", override="o3").applied, True)
    assert not gym.state().allowed


@story
def an_override_without_an_actor_is_the_callers(town):
    gym = town.gym().with_ann()
    put(gym, "bar", actor="")
    same(gym.state().cause.actor, "service:stories")
