"""Billing that nobody claims yet: kept, shown, and applied when the link arrives."""
import uuid

from world import look, refused, same, story


def waiting(gym, **fields):
    return gym.call("ListUnmatchedBilling", **fields).events


@story
def billing_is_kept_until_its_subscription_is_linked(town):
    gym = town.gym()
    gym.member("ann")
    event = gym.fails("in_1", payment_url="https://pay.example.com/1")
    held = waiting(gym)
    same([one.event.event_id for one in held], [event.event_id])
    same((held[0].why, held[0].event.HasField("payment_url")), ("unknown_subscription", False))
    gym.join("ms", "ann")
    same((len(waiting(gym)), look(gym.state()).status), (0, "overdue"))


@story
def billing_of_an_account_that_no_gym_claims_waits_for_one_that_does(town):
    gym = town.gym()
    account = f"acct_{uuid.uuid4().hex}"
    gym.member("ann")
    gym.join("ms", "ann", billing={**gym.reference("sub_ms"), "account": account})
    event = gym.fails("in_1", account=account)
    assert gym.state().allowed
    token, unclaimed = "", []
    while True:
        page = gym.call("ListUnmatchedBilling", gym_id="", page_size=500, page_token=token)
        unclaimed += [one for one in page.events if one.event.event_id == event.event_id]
        if not (token := page.next_page_token):
            break
    same([one.why for one in unclaimed], ["unknown_account"])
    gym.put(billing_accounts=[{"provider": "stripe", "account": account}])
    same(look(gym.state()).status, "overdue")


@story
def metadata_links_by_itself_within_the_gyms_own_accounts(town):
    gym, other = town.gym().with_ann(), town.gym().with_ann()
    mine = {"gymflow_membership_id": "ms"}
    gym.fails("in_1", of=None, metadata=mine)
    same((gym.state().allowed, other.state().allowed), (False, True))
    stranger = f"acct_{uuid.uuid4().hex}"
    other.fails("in_2", of=None, metadata=mine, account=stranger)
    same(other.state().allowed, True)


@story
def staff_link_by_hand_what_nothing_else_links(town):
    gym, other = town.gym().with_ann(), town.gym().with_ann()
    event = gym.fails("in_1", of="nobodys")
    link = {"membership_id": "ms", "provider": "stripe", "account": gym.account,
            "event_id": event.event_id, "actor": "staff:u_3"}
    for _ in range(2):
        assert gym.call("LinkBilling", **link).applied
    state = gym.state()
    same((look(state).status, state.cause.id, state.cause.actor),
         ("overdue", "LinkBilling", "staff:u_3"))
    same(len(waiting(gym)), 0)
    refused("FAILED_PRECONDITION", other.call, "LinkBilling", **link)
    refused("NOT_FOUND", gym.call, "LinkBilling", **{**link, "event_id": "evt_none"})
    refused("NOT_FOUND", gym.call, "LinkBilling", **{**link, "membership_id": "none"})
