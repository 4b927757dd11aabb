"""What a reconcile compares and repairs with."""
from world import refused, same, story, until


def versions(gym, **fields):
    answer = gym.call("ListMemberVersions", **fields)
    return {one.member_id: one.version for one in answer.members}


@story
def the_versions_of_a_gym_are_those_last_decided(town):
    gym = town.gym()
    gym.member("ann", "bob", "new")
    gym.join("ms", "ann")
    gym.join("his", "bob")
    held = versions(gym)
    # Nothing has been decided about somebody who holds nothing.
    same(held, {"ann": gym.state("ann").version, "bob": gym.state("bob").version})
    gym.fails("in_1")
    after = versions(gym)
    same((after["bob"], after["ann"] > held["ann"]), (held["bob"], True))
    gym.call("DeleteMember", member_id="ann")
    assert versions(gym)["ann"] > after["ann"], "who was erased is listed with the tombstone"


@story
def a_write_answers_with_the_versions_it_made(town):
    gym = town.gym()
    gym.member("ann", "bob")
    answer = gym.join("ms", "ann", "bob")
    same({one.member_id: one.version for one in answer.members}, versions(gym))
    answer = gym.pause("p", gym.day(-1))
    same({one.member_id: one.version for one in answer.members}, versions(gym))


@story
def a_version_grows_with_each_change_and_only_then(town):
    gym = town.gym().with_ann()
    seen = [gym.state().version]
    assert seen[0] > 1_700_000_000_000_000, "microseconds since 1970"
    for change in (
        lambda: gym.pause("p", gym.day(-1)),
        lambda: gym.resume(),
        lambda: gym.fails("in_1"),
        lambda: gym.invoice("payment_succeeded", "in_1"),
        lambda: gym.cancel(),
    ):
        change()
        seen.append(gym.state().version)
    same(seen, sorted(set(seen)))
    gym.put(name="Steel")
    gym.call("PutMember", member_id="ann", name="Other")
    same(gym.state().version, seen[-1])


@story
def republishing_sends_what_is_held_under_the_versions_held(town):
    gym = town.gym()
    gym.member("ann", "bob", "new")
    gym.join("ms", "ann")
    gym.join("his", "bob")
    before = {who: gym.until_published(gym.state(who).version, who) for who in ("ann", "bob")}
    gym.bus.forget_repeats("MEMBERSHIP", f"membership.v1.{gym.id}.nobody")
    gym.bus.wait(gym.bus.jetstream.purge_stream("MEMBERSHIP", subject=f"membership.v1.{gym.id}.*"))
    same(gym.published("ann"), [])
    until("ann again", lambda: again(gym, 1, "ann") == [before["ann"]])
    same(gym.published("bob"), [])
    until("bob again", lambda: again(gym, 2) and gym.published("bob") == [before["bob"]])
    same(versions(gym), {who: state.version for who, state in before.items()})


def again(gym, count, *members):
    """Sends again; what is on the bus about ann then."""
    same(gym.call("RepublishGym", member_ids=list(members)).published, count)
    return gym.published("ann")


@story
def republishing_leaves_out_who_is_not_known(town):
    gym = town.gym().with_ann()
    same(gym.call("RepublishGym", member_ids=["nobody", "ann", "ann"]).published, 1)
    many = [f"m{number}" for number in range(40_000)]
    same(gym.call("RepublishGym", member_ids=many).published, 0)
    refused("NOT_FOUND", gym.call, "RepublishGym", gym_id="g-nobodys", member_ids=["ann"])
