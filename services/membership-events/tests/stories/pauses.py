"""Pauses: of any length, of two sources, edited and ended."""
from datetime import timedelta

from world import days, look, moment, now, refused, same, story

SECOND = timedelta(seconds=1)


@story
def pauses_of_any_number_of_days_close_exactly_those_days(town):
    for length in (1, 2, 31, 400):
        gym = town.gym().with_ann()
        gym.pause("p", gym.day(2), gym.day(2 + length))
        begins, ends = gym.begins(gym.day(2)), gym.begins(gym.day(2 + length))
        seen = [gym.then(at).allowed for at in (begins - SECOND, begins, ends - SECOND, ends)]
        same(seen, [True, False, False, True])
        same(look(gym.then(begins)).reasons, ["membership_paused"])


@story
def a_pause_may_begin_now_and_stay_open(town):
    gym = town.gym().with_ann()
    gym.pause("p", gym.today)
    state = gym.state()
    same((look(state).status, look(state).reasons), ("paused", ["membership_paused"]))
    same(state.memberships[0].paused_until, "")
    assert not state.HasField("changes_at")
    assert not gym.then(now() + days(1_500)).allowed


@story
def a_pause_with_a_date_ends_by_itself(town):
    gym = town.gym().with_ann()
    gym.pause("p", gym.today, gym.day(7))
    state = gym.state()
    same((look(state).status, state.memberships[0].paused_until), ("paused", str(gym.day(7))))
    same(moment(state.changes_at), gym.begins(gym.day(7)))
    assert gym.then(gym.begins(gym.day(7))).allowed


@story
def before_it_begins_a_pause_changes_in_start_and_end(town):
    gym = town.gym().with_ann()
    gym.pause("p", gym.day(3), gym.day(5))
    gym.pause("p", gym.day(6), gym.day(9))
    open_at = [gym.then(gym.begins(gym.day(count))).allowed for count in (3, 5, 6, 8, 9)]
    same(open_at, [True, True, False, False, True])
    gym.pause("p", gym.day(1))
    same([gym.then(gym.begins(gym.day(count))).allowed for count in (1, 900)], [False, False])
    # It may as well begin at once.
    gym.pause("p", gym.day(-1), gym.day(2))
    same((look(gym.state()).status, gym.then(gym.begins(gym.day(2))).allowed), ("paused", True))


@story
def after_it_began_a_pause_changes_in_its_end_only(town):
    gym = town.gym().with_ann()
    gym.pause("p", gym.day(-2), gym.day(5))
    version = gym.state().version
    wrong = refused("FAILED_PRECONDITION", gym.pause, "p", gym.day(1), gym.day(5))
    assert "only its end" in wrong.message, wrong
    same(wrong.fields, ["from"])
    same(gym.state().version, version)
    gym.pause("p", gym.day(-2), gym.day(9))
    same(gym.state().memberships[0].paused_until, str(gym.day(9)))
    gym.pause("p", gym.day(-2))
    same(gym.state().memberships[0].paused_until, "")
    gym.pause("p", gym.day(-2), gym.today)
    assert gym.state().allowed


@story
def pauses_have_ids_and_each_ends_for_itself(town):
    gym = town.gym().with_ann()
    gym.pause("p1", gym.day(-2), gym.day(3))
    gym.pause("p2", gym.day(-1), gym.day(6))
    same(gym.state().memberships[0].paused_until, str(gym.day(6)))
    gym.resume(pause_id="p2")
    same(gym.state().memberships[0].paused_until, str(gym.day(3)))
    gym.resume(pause_id="p1")
    assert gym.state().allowed
    wrong = refused("NOT_FOUND", gym.resume, pause_id="p3")
    same(wrong.message, "the pause is not known")


@story
def a_pause_that_is_resumed_before_it_begins_never_comes(town):
    gym = town.gym().with_ann()
    gym.pause("p", gym.day(2), gym.day(6))
    gym.resume(pause_id="p")
    assert gym.then(gym.begins(gym.day(3))).allowed
    assert not gym.state().HasField("changes_at")


@story
def the_providers_pauses_and_the_clubs_are_separate_facts(town):
    gym = town.gym().with_ann()
    gym.pause("p", gym.day(-1))
    gym.bill("subscription_paused", now() - timedelta(hours=2))
    gym.resume(pause_id="p")
    same(look(gym.state()).status, "paused")
    gym.pause("q", gym.day(-1))
    gym.bill("subscription_resumed", now() - timedelta(hours=1))
    same(look(gym.state()).status, "paused")
    gym.resume(pause_id="q")
    assert gym.state().allowed


@story
def a_providers_pause_goes_by_the_providers_time_in_any_order(town):
    gym = town.gym().with_ann()
    gym.bill("subscription_resumed", now() - timedelta(hours=1))
    gym.bill("subscription_paused", now() - timedelta(hours=2))
    assert gym.state().allowed
    gym.bill("subscription_paused", now() - timedelta(minutes=30), ends_at=now() + days(2))
    state = gym.state()
    assert not state.allowed and state.HasField("changes_at")
    assert gym.then(now() + days(2) + SECOND).allowed


@story
def a_resume_without_a_pause_id_ends_every_pause_in_force_of_both_sources(town):
    gym = town.gym().with_ann()
    gym.pause("p1", gym.day(-3))
    gym.pause("p2", gym.day(-2), gym.day(4))
    gym.pause("later", gym.day(6), gym.day(8))
    gym.bill("subscription_paused", now() - timedelta(hours=2))
    gym.resume()
    assert gym.state().allowed
    begins = gym.begins(gym.day(6))
    same([gym.then(begins - SECOND).allowed, gym.then(begins).allowed], [True, False])


@story
def a_resume_holds_as_of_its_instant(town):
    gym = town.gym().with_ann()
    gym.pause("p", gym.day(-1))
    at = now() + days(3)
    gym.resume(pause_id="p", at=at)
    assert not gym.state().allowed
    same([gym.then(at - SECOND).allowed, gym.then(at + SECOND).allowed], [False, True])


@story
def a_pause_whose_resume_is_to_come_has_begun_all_the_same(town):
    gym = town.gym().with_ann()
    gym.pause("p", gym.day(-2))
    gym.resume(pause_id="p", at=gym.begins(gym.day(3)))
    found = refused("FAILED_PRECONDITION", gym.pause, "p", gym.day(1))
    same(found.fields, ["from"])
    assert not gym.state().allowed
    # Its end changes, and it is still resumed when it was to be.
    gym.pause("p", gym.day(-2), gym.day(9))
    begins = gym.begins(gym.day(3))
    same([gym.then(begins - SECOND).allowed, gym.then(begins).allowed], [False, True])
    gym.pause("p", gym.day(-2), gym.day(2))
    assert gym.then(gym.begins(gym.day(2))).allowed


@story
def a_resume_of_everything_that_comes_a_second_time_ends_no_later_pause(town):
    gym = town.gym().with_ann()
    gym.bill("subscription_paused", now() - timedelta(hours=2))
    number = gym.next()
    gym.resume(source_version=number)
    assert gym.state().allowed
    gym.bill("subscription_paused")
    assert not gym.state().allowed
    again = gym.resume(source_version=number)
    same((again.applied, again.source_version), (True, number))
    assert not gym.state().allowed, "a repeat resumed what was paused after it"
    gym.resume()
    assert gym.state().allowed
    older = gym.resume(source_version=number)
    same((older.applied, older.source_version > number), (False, True))


@story
def a_resume_without_a_number_makes_no_numbered_write_stale(town):
    gym = town.gym().with_ann()

    def wish(at, **more):
        return gym.resume(unnumbered=True, source_version=0, at=at, **more)

    gym.pause("p", gym.day(-1))
    gym.bill("subscription_paused", now() - timedelta(hours=2))
    at = now()
    assert wish(at).applied
    assert gym.state().allowed
    # The club's own numbers go on.
    gym.pause("p", gym.day(-1), gym.day(9))
    gym.pause("q", gym.day(-1))
    gym.bill("subscription_paused")
    assert not gym.state().allowed
    same(wish(at).applied, True)
    assert not gym.state().allowed, "a repeat resumed what was paused after it"
    same(wish(at - SECOND).applied, False)
    assert gym.resume().applied
    assert gym.state().allowed
    refused("INVALID_ARGUMENT", wish, None)
    refused("INVALID_ARGUMENT", wish, now(), pause_id="p")
    found = refused("FAILED_PRECONDITION", wish, now() + days(1))
    same(found.fields, ["at"])
