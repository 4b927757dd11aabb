"""Lists, a page at a time, while others write; and fields that are not asked for."""
import uuid

from gymflow.billing.v1 import billing_pb2
from world import now, refused, same, story


def walk(gym, rpc, rows, between=lambda: None, **fields):
    """Every page, with `between` called after each."""
    token, pages = "", []
    while True:
        answer = gym.call(rpc, page_token=token, **fields)
        pages.append([row for row in getattr(answer, rows)])
        token = answer.next_page_token
        if not token:
            return pages
        assert len(pages) < 100, "there is an end"
        between()


def ids(pages):
    return [row.member_id for page in pages for row in page]


@story
def members_come_by_id_and_page_by_page(town):
    gym = town.gym()
    names = [f"m{number:02}" for number in range(12)]
    gym.member(*reversed(names))
    for size, count in ((5, 3), (12, 1), (0, 1)):
        pages = walk(gym, "ListMembers", "members", page_size=size)
        same((ids(pages), len(pages)), (names, count))


@story
def a_row_that_comes_while_paging_makes_no_other_come_twice_or_never(town):
    for rpc in ("ListMembers", "ListMemberVersions"):
        gym = town.gym()
        names = [f"m{number:02}" for number in range(0, 16, 2)]
        gym.member(*names)
        for name in names:
            gym.join(f"ms-{name}", name)
        added = iter(["a-first", "m01", "z-last"])

        def between():
            if new := next(added, None):
                gym.member(new)
                gym.join(f"ms-{new}", new)

        seen = ids(walk(gym, rpc, "members", between, page_size=2))
        same(seen, sorted(set(seen)))
        same([name for name in names if name not in seen], [])
        assert "z-last" in seen, "what comes behind the page is on a later one"


@story
def billing_that_waits_is_paged_from_the_oldest_on_while_more_comes(town):
    gym = town.gym()

    def park(count):
        return [gym.bill("payment_failed", of=None, subscription_id=f"s_{uuid.uuid4().hex}",
                         invoice_id=f"in_{uuid.uuid4().hex}").event_id for _ in range(count)]

    parked = park(7)
    rest = park
    pages = walk(gym, "ListUnmatchedBilling", "events", lambda: rest(1), page_size=3)
    seen = [row.event.event_id for page in pages for row in page]
    same(seen[:7], parked)
    same(len(seen), len(set(seen)))


@story
def events_of_one_id_in_two_accounts_are_both_listed(town):
    one, two = f"acct_{uuid.uuid4().hex}", f"acct_{uuid.uuid4().hex}"
    accounts = [{"provider": "stripe", "account": account} for account in (one, two)]
    gym = town.gym(billing_accounts=accounts)
    event = billing_pb2.BillingEvent(event_id="evt_same", provider="stripe", kind="payment_failed",
                                     occurred_at=now(), invoice_id="in_1", subscription_id="s")
    for account in (one, two):
        event.account = account
        gym.say(event)
    pages = walk(gym, "ListUnmatchedBilling", "events", page_size=1)
    same(sorted(row.event.account for page in pages for row in page), sorted([one, two]))


@story
def a_bad_or_a_foreign_page_token_is_refused(town):
    gym, other = town.gym(), town.gym()
    for one in (gym, other):
        one.member("ann", "bob", "cat")
        for name in ("ann", "bob", "cat"):
            one.join(f"ms-{name}", name)
        for _ in range(3):
            one.bill("payment_failed", of=None, invoice_id=f"in_{uuid.uuid4().hex}")
    lists = {
        rpc: gym.call(rpc, page_size=1).next_page_token
        for rpc in ("ListMembers", "ListMemberVersions", "ListUnmatchedBilling")
    }
    assert all(lists.values()), lists
    for rpc, own in lists.items():
        foreign = [token for name, token in lists.items() if name != rpc]
        foreign.append(other.call(rpc, page_size=1).next_page_token)
        other_byte = "11" if own.startswith("00") else "00"
        broken = ["x", "zz", "é", "0", own[:-1], own[1:], own[:-2], other_byte + own[2:], own * 20]
        for token in foreign + broken:
            found = refused("INVALID_ARGUMENT", gym.call, rpc, page_token=token)
            same((rpc, found.fields), (rpc, ["page_token"]))
        assert gym.call(rpc, page_token=own, page_size=2), "another size is no other list"
    token = gym.call("ListMembers", page_size=1, status="active").next_page_token
    for fields in ({}, {"status": "ended"}, {"query": "a", "status": "active"}):
        found = refused("INVALID_ARGUMENT", gym.call, "ListMembers", page_token=token, **fields)
        same(found.fields, ["page_token"])


@story
def members_are_found_by_part_of_a_name_or_an_e_mail_in_any_case(town):
    gym = town.gym()
    for member, name, email in [
        ("ann", "Ann Smith", "ann@example.com"),
        ("bob", "Björn Ångström", "Bob.B@Example.org"),
        ("cat", "50%_off\\", "cat@example.net"),
        ("dan", "ΔΈΣΠΟΙΝΑ Straße", ""),
    ]:
        gym.call("PutMember", member_id=member, name=name, email=email)

    def found(query, **more):
        return [one.member_id for one in gym.call("ListMembers", query=query, **more).members]

    for query, members in [
        ("smith", ["ann"]), ("SMITH", ["ann"]), ("ann s", ["ann"]), ("@EXAMPLE.org", ["bob"]),
        ("example", ["ann", "bob", "cat"]), ("björn", ["bob"]), ("BJÖRN", ["bob"]),
        ("ångström", ["bob"]), ("%", ["cat"]), ("_", ["cat"]), ("\\", ["cat"]), ("0%_o", ["cat"]),
        ("δέσποινα", ["dan"]), ("straße", ["dan"]), ("nobody", []), ("'", []),
    ]:
        same((query, found(query)), (query, members))


@story
def members_are_filtered_by_status_and_by_reason(town):
    gym = town.gym()
    gym.member("ann", "bob", "cat", "dan")
    gym.join("ms", "ann")
    gym.join("ms-bob", "bob")
    gym.join("ms-cat", "cat", starts_on=gym.day(3))
    gym.fails("in_1")
    gym.pause("p", gym.day(-1), membership="ms-bob")

    def found(**fields):
        return [one.member_id for one in gym.call("ListMembers", **fields).members]

    for fields, members in [
        ({"status": "overdue"}, ["ann"]), ({"status": "paused"}, ["bob"]),
        ({"status": "pending"}, ["cat"]), ({"status": "active"}, []),
        ({"reason": "missed_payment"}, ["ann"]), ({"reason": "membership_not_started"}, ["cat"]),
        ({"status": "paused", "query": "ann"}, []), ({"status": "paused", "query": "BOB"}, ["bob"]),
        ({}, ["ann", "bob", "cat", "dan"]),
    ]:
        same((fields, found(**fields)), (fields, members))


@story
def a_read_mask_leaves_out_what_is_not_asked_for(town):
    gym = town.gym().with_ann()
    gym.fails("in_1", payment_url="https://pay.example.com/1")
    whole = gym.get()
    assert whole.email and whole.name and whole.open_invoices and whole.state.version
    state = gym.get("ann", "state")
    same((state.state, state.email, state.name), (whole.state, "", ""))
    same((state.gym_id, state.member_id), (gym.id, "ann"))
    same(len(state.open_invoices), 0)
    some = gym.get("ann", "email", "open_invoices", "source_version")
    same((some.email, some.source_version), (whole.email, whole.source_version))
    same(list(some.open_invoices), list(whole.open_invoices))
    assert not some.HasField("state")
    found = refused("INVALID_ARGUMENT", gym.get, "ann", "state.allowed")
    same(found.fields, ["read_mask.paths[0]"])


@story
def what_a_put_leaves_out_is_cleared_and_not_left_as_it_was(town):
    gym = town.gym(overdue_scope="membership", overdue_grace={"seconds": 86_400})
    gym.with_ann(ends_on=gym.day(9), next_plan={"plan_id": "silver", "from": gym.day(1)})
    gym.join("ms", "ann", billing=None)
    state = gym.state()
    same((state.memberships[0].ends_on, state.HasField("changes_at")), ("", False))
    # Without its reference nothing of the subscription concerns it any more.
    gym.bill("payment_failed", invoice_id="in_1")
    same(len(gym.call("ListUnmatchedBilling").events), 0)
    gym.call("PutMember", member_id="ann")
    same((gym.get().email, gym.get().name), ("", ""))
    gym.put(billing_accounts=[])
    gym.bill("payment_failed", of="new", invoice_id="in_2")
    same(len(gym.call("ListUnmatchedBilling").events), 0)
