"""Deadlines: kept, and what is cut off is done whole or not at all."""
import random

from world import Refused, look, refused, same, story, until


@story
def a_call_that_has_no_time_is_answered_so_and_can_be_sent_again(town):
    gym, cut_off = town.gym().with_ann(), town.neighbour()
    for rpc, fields in [
        ("PutMember", {"member_id": "late"}),
        ("PutMembership", {"membership_id": "late", "plan_id": "gold", "member_ids": ["ann"],
                           "starts_on": gym.today}),
        ("PauseMembership", {"membership_id": "ms", "pause_id": "p", "from_": gym.day(-1)}),
        ("CancelMembership", {"membership_id": "ms"}),
        ("GetMember", {"member_id": "ann"}),
        ("DeleteMember", {"member_id": "ann"}),
    ]:
        if rpc.startswith("Put") or rpc.endswith("Membership"):
            fields["source_version"] = gym.next()
        gym.town = cut_off
        refused("DEADLINE_EXCEEDED", gym.call, rpc, timeout=0, **fields)
        gym.town = town
        # Whether it was begun or not, it is the same write.
        gym.call(rpc, **fields)
    same(gym.get("late").member_id, "late")
    same((gym.state().erased, len(gym.state().memberships)), (True, 0))


@story
def a_call_that_is_cut_off_anywhere_is_done_whole_or_not_at_all(town):
    gym, cut_off = town.gym(), town.neighbour()
    gym.member("ann", "bob")
    # A server takes leave of who cuts off very many: UNAVAILABLE, on that connection.
    answers = {"OK": 0, "DEADLINE_EXCEEDED": 0, "UNAVAILABLE": 0}
    for number in range(30):
        name = f"ms{number}"
        try:
            gym.town = cut_off
            gym.join(name, "ann", "bob", timeout=random.uniform(0.001, 0.012))
            gym.town = town
            answers["OK"] += 1
            same([look(gym.state(who), name).status for who in ("ann", "bob")], ["active"] * 2)
        except Refused as error:
            gym.town = town
            answers[error.code] += 1
    assert answers["DEADLINE_EXCEEDED"], answers
    # Nothing is locked. What is still under way comes to its end.
    gym.join("last", "ann", "bob")

    def held(who):
        return [one.membership_id for one in gym.state(who).memberships]

    until("what one holds is what the other holds", lambda: held("ann") == held("bob"))
    answers["held"] = len(held("ann"))
    assert answers["OK"] + 1 <= answers["held"] <= 31, answers
    for who in ("ann", "bob"):

        def agree():
            state = gym.state(who)
            return [gym.explain(member=who).state, *gym.published(who)[-1:]] == [state, state]

        until("what is held, explained and published is one", agree)
