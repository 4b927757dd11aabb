"""A debt follows its payer, unless the gym says that it does not."""
from world import look, same, story


def family(town, **rules):
    """Ann pays for her own membership and for one that she shares with Bob; Bob has one too."""
    gym = town.gym(**rules)
    gym.member("ann", "bob")
    gym.join("hers", "ann", plan_id="gold")
    gym.join("shared", "ann", "bob", plan_id="pool")
    gym.join("his", "bob", plan_id="gold")
    return gym


@story
def a_debt_closes_every_membership_that_its_payer_pays_for_as_far_as_she_goes(town):
    gym = family(town)
    gym.fails("in_1", of="hers")
    same(look(gym.state("ann")).plans, [])
    same(look(gym.state("ann"), "shared").why, ["missed_payment"])
    # Others lose the indebted membership alone, which is not theirs.
    same(look(gym.state("bob")).plans, ["gold", "pool"])
    gym.invoice("payment_succeeded", "in_1", of="hers")
    same(look(gym.state("ann")).plans, ["gold", "pool"])


@story
def other_holders_lose_the_indebted_membership_and_no_other(town):
    gym = family(town)
    gym.fails("in_1", of="shared")
    same(look(gym.state("ann")).plans, [])
    same(look(gym.state("bob")).plans, ["gold"])
    same(look(gym.state("bob"), "shared").why, ["missed_payment"])
    same(look(gym.state("bob"), "his").why, [])


@story
def a_membership_newly_bought_is_closed_by_an_old_debt(town):
    gym = town.gym().with_ann()
    gym.fails("in_1")
    gym.cancel()
    gym.join("new", "ann")
    state = gym.state()
    same((state.allowed, look(state, "new").why), (False, ["missed_payment"]))
    gym.invoice("payment_succeeded", "in_1")
    same((gym.state().allowed, look(gym.state(), "new").opens), (True, True))


@story
def with_the_scope_of_one_membership_a_debt_closes_that_one_alone(town):
    gym = family(town, overdue_scope="membership")
    gym.fails("in_1", of="hers")
    same(look(gym.state("ann")).plans, ["pool"])
    # The rule changes, and with it what was decided.
    gym.put(overdue_scope="member")
    same(look(gym.state("ann")).plans, [])
    gym.put(overdue_scope="membership")
    same(look(gym.state("ann")).plans, ["pool"])
    gym.put()
    same(look(gym.state("ann")).plans, [])


@story
def a_payer_needs_to_hold_no_seat(town):
    gym = town.gym()
    gym.member("mum", "kid")
    gym.join("ms", "kid", payer_member_id="mum")
    gym.join("hers", "mum", plan_id="pool")
    same(look(gym.state("mum")).plans, ["pool"])
    same([one.membership_id for one in gym.state("mum").memberships], ["hers"])
    gym.fails("in_1", payment_url="https://pay.example.com/1")
    # The debt is of the kid's membership, and of the mother who pays.
    same((gym.state("kid").allowed, gym.state("mum").allowed), (False, False))
    # The link to pay is shown to who pays.
    same([one.payment_url for one in gym.get("mum").open_invoices], ["https://pay.example.com/1"])
    same([one.HasField("payment_url") for one in gym.get("kid").open_invoices], [False])
    gym.invoice("payment_succeeded", "in_1")
    same((gym.state("kid").allowed, gym.state("mum").allowed), (True, True))
    # Her own debt does not close what the kid holds.
    gym.fails("in_2", of="hers")
    same((gym.state("kid").allowed, gym.state("mum").allowed), (True, False))


@story
def a_debt_goes_with_the_payer_when_another_one_pays(town):
    gym = town.gym()
    gym.member("mum", "kid")
    gym.join("ms", "kid", payer_member_id="mum")
    gym.join("hers", "mum", plan_id="pool")
    gym.join("swim", "kid", plan_id="pool")
    gym.fails("in_1")
    same((look(gym.state("kid")).plans, look(gym.state("mum")).plans), (["pool"], []))
    gym.join("ms", "kid")
    same((look(gym.state("kid")).plans, look(gym.state("mum")).plans), ([], ["pool"]))
