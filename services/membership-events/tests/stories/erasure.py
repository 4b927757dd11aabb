"""A person is forgotten, in order: the tombstone, the doors' answer, the purge."""
from datetime import timedelta

from gymflow.access.v1 import events_pb2 as access_pb2
from world import moment, now, refused, same, story, until


def answer(gym, outcome, version, number, member="ann"):
    """What kisi-sync says on ACCESS."""
    message = access_pb2.AccessApplied(gym_id=gym.id, member_id=member, version=version,
                                       applied_seq=number, outcome=outcome)
    gym.bus.publish(f"access.v1.{gym.id}.{member}", message, f"{gym.id}/{member}/{number}",
                    f"{gym.id}/{member}")


def erase(gym, member="ann"):
    return gym.call("DeleteMember", member_id=member)


@story
def an_erasure_is_a_tombstone_first_and_the_purge_after_the_doors_have_answered(town):
    gym = town.gym()
    canary = f"canary-{gym.id}"
    gym.member("bob")
    gym.call("PutMember", member_id="ann", name=canary, email=f"{canary}@example.com")
    gym.join("ms", "ann", "bob")
    gym.fails("in_1", payment_url=f"https://pay.example.com/{canary}",
              metadata={"gymflow_note": canary})
    gym.call("PutOverride", member_id="ann", override_id="o", kind="let_in",
             until=now() + timedelta(days=1), reason=canary, actor="staff:u_1")
    before = gym.state().version
    outcome = erase(gym)
    state = gym.state()
    same((outcome.applied, outcome.members[0].version), (True, state.version))
    assert state.version > before and state.erased and not state.allowed
    same((len(state.memberships), len(state.plans)), (0, 0))
    same((state.cause.kind, state.cause.actor), ("erasure", "service:stories"))
    gym.until_published(state.version)
    # Until the doors answer, whoever asks for this very person may have to know who it is.
    same((gym.get().erased, gym.get().name), (True, canary))
    listed = [one for one in gym.call("ListMembers").members if one.member_id == "ann"]
    same([(one.name, one.email) for one in listed], [("", "")])
    same(len(gym.call("ListMembers", query=canary).members), 0)

    answer(gym, "revoked", state.version, 1)
    answer(gym, "erased", state.version, 2)
    until("the name is gone", lambda: not gym.get().name)
    same(gym.get().email, "")

    def messages():
        return gym.published() + gym.bus.list("ACCESS", f"access.v1.{gym.id}.ann",
                                              access_pb2.AccessApplied)

    until("only the tombstone and its answer are left", lambda: len(messages()) == 2)
    same([one.erased for one in gym.published()], [True])

    def traces():
        found = []
        for stream in ("BILLING", "MEMBERSHIP", "ACCESS", "NOTIFY", "DEAD_LETTER"):
            info = gym.bus.wait(gym.bus.jetstream.stream_info(stream, subjects_filter=">"))
            subjects = [subject for subject in info.state.subjects or {} if gym.id in subject]
            bodies = [body for subject in subjects for body in gym.bus.bodies(stream, subject)]
            found += [stream for body in bodies if canary.encode() in body]
        return found

    until("no stream says who it was", lambda: not traces())
    assert canary not in str(gym.explain())
    refused("NOT_FOUND", gym.explain, moment(state.decided_at) - timedelta(milliseconds=1))
    # Others keep what they share: the membership, and its debt.
    same(gym.state("bob").memberships[0].status, "overdue")


@story
def an_answer_to_an_earlier_version_erases_nothing_yet(town):
    gym = town.gym().with_ann()
    erase(gym)
    answer(gym, "erased", gym.state().version - 1, 1)
    # Somebody who is erased after her is done before her.
    gym.member("bob")
    gym.join("his", "bob")
    erase(gym, "bob")
    answer(gym, "erased", gym.state("bob").version, 1, "bob")
    until("bob is forgotten", lambda: not gym.get("bob").name)
    same(gym.get().name, "Person ann")


@story
def nothing_is_decided_about_who_was_erased_and_a_second_time_says_the_same(town):
    gym = town.gym().with_ann()
    first = erase(gym)
    state = gym.state()
    again = erase(gym)
    same((again.applied, gym.state()), (True, state))
    same(first.source_version, again.source_version)
    gym.fails("in_1")
    gym.cancel()
    same(gym.state(), state)
    for call in (
        lambda: gym.member("ann"),
        lambda: gym.join("new", "ann"),
        lambda: gym.call("PutOverride", member_id="ann", override_id="o", kind="bar",
                         until=now() + timedelta(days=1)),
    ):
        assert "erased" in refused("FAILED_PRECONDITION", call).message
    same(refused("NOT_FOUND", erase, gym, "nobody").message, "the member is not known")
    same(gym.explain().state, state)
