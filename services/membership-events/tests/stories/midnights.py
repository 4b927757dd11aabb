"""Midnight is the gym's, in every zone and whatever clocks do there."""
from datetime import timedelta

from world import days, look, moment, same, story

SECOND = timedelta(seconds=1)
ZONES = [
    "Europe/London",
    # Clocks change by half an hour.
    "Australia/Lord_Howe",
    # Midnight itself is skipped in spring, and comes twice in autumn.
    "America/Havana",
    # 23:00 comes twice, so that midnight is later than it seems.
    "Africa/Cairo",
    "Pacific/Kiritimati",
]
FOUND = {}


def changes(gym):
    """The next days on which clocks go forward and back, at most a year ahead."""
    if gym.zone_name in FOUND:
        return FOUND[gym.zone_name]
    found = {}
    begins = gym.begins(gym.today)
    for count in range(1, 366):
        ends = gym.begins(gym.day(count))
        length = ends - begins
        if length != days(1):
            found.setdefault(length < days(1), gym.day(count - 1))
        begins = ends
    FOUND[gym.zone_name] = found
    return found


def days_of_note(town):
    for zone in ZONES:
        gym = town.gym(zone=zone)
        found = changes(gym)
        # Governments change their minds: in some year a zone keeps its time.
        assert found or zone == "Pacific/Kiritimati", zone
        for day in [*found.values(), gym.day(3)]:
            yield gym, day


@story
def a_day_pass_opens_from_midnight_to_midnight_across_clock_changes_both_ways(town):
    for number, (gym, day) in enumerate(days_of_note(town)):
        gym.member(f"m{number}")
        gym.join(f"ms{number}", f"m{number}", starts_on=day, ends_on=day)
        begins, ends = gym.begins(day), gym.begins(day + days(1))
        for at, status in [
            (begins - SECOND, "pending"),
            (begins, "active"),
            (ends - SECOND, "active"),
            (ends, "ended"),
        ]:
            seen = look(gym.then(at, f"m{number}"), f"ms{number}").status
            assert seen == status, f"{gym.zone_name} {at}: {seen}, not {status}"
        same(moment(gym.then(begins, f"m{number}").plans[0].valid_until), ends)


@story
def a_pause_begins_and_ends_at_midnight_across_clock_changes_both_ways(town):
    for number, (gym, day) in enumerate(days_of_note(town)):
        member, membership = f"m{number}", f"ms{number}"
        gym.member(member)
        gym.join(membership, member)
        gym.pause("p", day, day + days(1), membership=membership)
        begins, ends = gym.begins(day), gym.begins(day + days(1))
        seen = [gym.then(at, member).allowed for at in (begins - SECOND, begins, ends - SECOND, ends)]
        assert seen == [True, False, False, True], f"{gym.zone_name} {day}: {seen}"
        same(gym.then(begins, member).memberships[0].paused_until, str(day + days(1)))


@story
def a_gym_that_moves_to_another_zone_has_its_midnights_there(town):
    gym = town.gym(zone="Europe/London")
    gym.with_ann(starts_on=gym.day(5))
    before = moment(gym.state().changes_at)
    version = gym.state().version
    gym.put(time_zone="Asia/Tokyo")
    after = moment(gym.state().changes_at)
    same((before - after) // timedelta(hours=1), 9 if before.month in (11, 12, 1, 2) else 8)
    assert gym.state().version > version
    same([gym.then(after - SECOND).allowed, gym.then(after).allowed], [False, True])
