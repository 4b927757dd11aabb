"""A member asks to be resumed: kept, told once, decided by others."""
from gymflow.membership.v1 import events_pb2
from world import refused, same, story, until


def ask(gym, member="ann", membership="ms", **more):
    return gym.call("RequestResume", membership_id=membership, member_id=member, **more)


def told(gym):
    return gym.bus.list("NOTIFY", f"notify.v1.{gym.id}.resume_requested", events_pb2.Notification)


@story
def a_request_to_resume_is_told_once_and_opens_nothing(town):
    gym = town.gym().with_ann()
    gym.pause("p", gym.day(-1))
    version = gym.state().version
    for _ in range(3):
        answer = ask(gym, behind="member:ann")
        same((answer.applied, answer.source_version), (True, 0))
        same([(one.member_id, one.version) for one in answer.members], [("ann", version)])
    one = until("it is told", lambda: told(gym))[0]
    same((one.kind, one.gym_id, one.member_id), ("resume_requested", gym.id, "ann"))
    same((list(one.reasons), one.who), (["membership_paused"], "staff"))
    same(dict(one.details), {"membership_id": "ms", "requested_by": "member:ann"})
    assert gym.town.call("GetMember", gym_id=gym.id, member_id="ann").name not in str(one)
    same((gym.state().allowed, gym.state().version), (False, version))


@story
def a_member_has_one_open_request(town):
    gym = town.gym().with_ann()
    gym.join("other", "ann")
    gym.pause("p", gym.day(-1))
    gym.pause("p", gym.day(-1), membership="other")
    ask(gym)
    found = refused("FAILED_PRECONDITION", ask, gym, membership="other")
    assert "another membership" in found.message, found
    until("it is told", lambda: told(gym))
    # Resumed, it is answered; paused again, it may be asked for again.
    gym.resume()
    until("the first is closed", lambda: ask_other(gym))
    until("both are told", lambda: len(told(gym)) == 2)
    same(len({one.id for one in told(gym)}), 2)


def ask_other(gym):
    try:
        return ask(gym, membership="other")
    except AssertionError:
        return None


@story
def only_who_holds_or_pays_may_ask_and_only_while_paused(town):
    gym = town.gym()
    gym.member("ann", "mum", "eve")
    gym.join("ms", "ann", payer_member_id="mum")
    assert "not paused" in refused("FAILED_PRECONDITION", ask, gym).message
    gym.bill("subscription_paused")
    assert "neither holds" in refused("FAILED_PRECONDITION", ask, gym, "eve").message
    same(refused("NOT_FOUND", ask, gym, "nobody").message, "the member is not known")
    same(refused("NOT_FOUND", ask, gym, membership="no").message, "the membership is not known")
    assert ask(gym, "ann").applied
    # Access follows what billing says, and not the request.
    assert not gym.state().allowed
    gym.bill("subscription_resumed")
    assert gym.state().allowed


@story
def who_pays_and_holds_no_seat_may_ask_too(town):
    gym = town.gym()
    gym.member("ann", "mum")
    gym.join("ms", "ann", payer_member_id="mum")
    gym.pause("p", gym.day(-1))
    for _ in range(2):
        assert ask(gym, "mum", behind="member:mum").applied
    one = until("it is told", lambda: told(gym))[0]
    same((one.member_id, dict(one.details)["requested_by"]), ("mum", "member:mum"))
    # It is hers alone: ann may ask for herself.
    assert ask(gym, "ann", behind="member:ann").applied
    gym.resume()
    assert gym.state().allowed
    assert "not paused" in refused("FAILED_PRECONDITION", ask, gym, "mum").message
    gym.pause("q", gym.day(-1))
    until("it may be asked for again", lambda: ask(gym, "mum") and len(told(gym)) == 3)
