"""Gymflow's rules: what runs when, who holds it, and what adds up."""
from datetime import timedelta

from world import days, look, moment, refused, same, story

SECOND = timedelta(seconds=1)


@story
def a_membership_runs_from_its_first_day_on(town):
    gym = town.gym().with_ann(starts_on=town.gym().day(3))
    state = gym.state()
    same((look(state).allowed, look(state).status), (False, "pending"))
    same(look(state).reasons, ["membership_not_started"])
    begins = gym.begins(gym.day(3))
    same(moment(state.changes_at), begins)
    assert not gym.then(begins - SECOND).allowed
    same(look(gym.then(begins)).status, "active")
    same(gym.then(begins + days(1_500)).allowed, True)


@story
def a_trial_and_a_prepaid_membership_end_with_their_last_day(town):
    for length in (7, 365):
        gym = town.gym()
        gym.with_ann(starts_on=gym.today, ends_on=gym.day(length))
        state = gym.state()
        same((state.allowed, state.memberships[0].ends_on), (True, str(gym.day(length))))
        ends = gym.begins(gym.day(length + 1))
        same(moment(state.plans[0].valid_until), ends)
        assert gym.then(ends - SECOND).allowed
        same(look(gym.then(ends)).status, "ended")
        same(look(gym.then(ends)).reasons, ["membership_ended"])


@story
def a_day_pass_opens_for_one_day(town):
    gym = town.gym()
    gym.with_ann(starts_on=gym.day(2), ends_on=gym.day(2))
    begins, ends = gym.begins(gym.day(2)), gym.begins(gym.day(3))
    seen = [look(gym.then(at)).status for at in (begins - SECOND, begins, ends - SECOND, ends)]
    same(seen, ["pending", "active", "active", "ended"])
    same(moment(gym.then(begins).plans[0].valid_until), ends)


@story
def a_prepaid_end_is_kept_as_told_and_never_moved_a_second_time(town):
    gym = town.gym()
    term = {"starts_on": gym.day(-5), "ends_on": gym.day(30)}
    gym.with_ann(**term)
    gym.pause("p", gym.day(1), gym.day(11))
    same(gym.state().memberships[0].ends_on, str(gym.day(30)))
    # Gymflow adds the ten days, and says so.
    gym.join("ms", "ann", **{**term, "ends_on": gym.day(40)})
    same(gym.state().memberships[0].ends_on, str(gym.day(40)))
    gym.pause("p", gym.day(1), gym.day(9))
    gym.resume(pause_id="p")
    same(gym.state().memberships[0].ends_on, str(gym.day(40)))
    ends = gym.begins(gym.day(41))
    same([gym.then(ends - SECOND).allowed, gym.then(ends).allowed], [True, False])


@story
def a_cancellation_leaves_access_until_its_date(town):
    gym = town.gym().with_ann()
    gym.cancel(ends_on=gym.day(10))
    state = gym.state()
    same((state.allowed, look(state).status), (True, "cancelling"))
    ends = gym.begins(gym.day(11))
    same(moment(state.plans[0].valid_until), ends)
    same([gym.then(ends - SECOND).allowed, gym.then(ends).allowed], [True, False])
    same(look(gym.then(ends)).status, "ended")


@story
def a_cancellation_without_a_date_closes_at_once(town):
    gym = town.gym().with_ann()
    gym.cancel()
    same(look(gym.state()).reasons, ["membership_ended"])


@story
def a_cancellation_can_be_taken_back_and_putting_the_membership_does_not(town):
    gym = town.gym().with_ann()
    gym.cancel(ends_on=gym.day(-1))
    same(look(gym.state()).status, "ended")
    gym.join("ms", "ann", ends_on=gym.day(400))
    gym.join("ms", "ann")
    same(look(gym.state()).status, "ended")
    gym.cancel(take_back=True)
    same(look(gym.state()).status, "active")
    assert not gym.state().HasField("changes_at")
    wrong = refused("INVALID_ARGUMENT", gym.cancel, take_back=True, ends_on=gym.day(1))
    same(wrong.fields, ["take_back"])


@story
def a_changed_plan_holds_from_its_date(town):
    gym = town.gym().with_ann()
    gym.join("ms", "ann", next_plan={"plan_id": "silver", "from": gym.day(4)})
    same(look(gym.state()).plans, ["gold"])
    begins = gym.begins(gym.day(4))
    same(moment(gym.state().changes_at), begins)
    same(look(gym.then(begins - SECOND)).plans, ["gold"])
    same((look(gym.then(begins)).plans, look(gym.then(begins)).plan), (["silver"], "silver"))
    # Taken back before it comes.
    gym.join("ms", "ann")
    same(look(gym.then(begins)).plans, ["gold"])


@story
def each_holder_of_a_shared_membership_gets_access(town):
    gym = town.gym()
    gym.member("ann", "bob", "cat")
    answer = gym.join("ms", "ann", "bob", "cat")
    same([one.member_id for one in answer.members], ["ann", "bob", "cat"])
    same([gym.state(who).allowed for who in ("ann", "bob", "cat")], [True] * 3)
    answer = gym.join("ms", "ann", "cat")
    assert "bob" in [one.member_id for one in answer.members], "who leaves is decided about too"
    same(look(gym.state("bob")).reasons, ["no_membership"])
    same([gym.state(who).allowed for who in ("ann", "cat")], [True, True])


@story
def several_memberships_of_a_member_add_up(town):
    gym = town.gym().with_ann()
    gym.join("pool", "ann", plan_id="pool")
    gym.join("more", "ann", plan_id="gold")
    same(look(gym.state()).plans, ["gold", "pool"])
    # A paused or ended one closes no door that another opens.
    gym.pause("p", gym.day(-1))
    gym.cancel("pool")
    state = gym.state()
    same((state.allowed, look(state).plans), (True, ["gold"]))
    same([look(state, one).status for one in ("more", "ms", "pool")], ["active", "paused", "ended"])
    gym.cancel("more")
    same(look(gym.state()).reasons, ["membership_paused", "membership_ended"])


@story
def a_person_is_a_member_of_several_gyms(town):
    one, other = town.gym().with_ann(), town.gym().with_ann()
    one.fails("in_1")
    same((one.state().allowed, other.state().allowed), (False, True))
    other.pause("p", other.day(-1))
    one.invoice("payment_succeeded", "in_1")
    same((one.state().allowed, other.state().allowed), (True, False))
    one.call("DeleteMember", member_id="ann")
    same((one.get().erased, other.get().erased), (True, False))


@story
def a_membership_without_an_end_and_one_that_ends_with_time_itself_are_both_open(town):
    gym = town.gym()
    gym.with_ann(starts_on="0001-01-01", ends_on="9999-12-31")
    state = gym.state()
    same((state.allowed, state.memberships[0].ends_on), (True, "9999-12-31"))
    same(look(gym.explain().state).status, "active")
    gym.until_published(state.version)
