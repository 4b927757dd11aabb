"""What is wrong with a request: every field named, in the details of the answer."""
from datetime import timedelta

from world import days, now, refused, same, story

BAD = ["", "a b", "x" * 65, "a.b", "é", "a\x00"]


def wrong(gym, rpc, **fields):
    found = refused("INVALID_ARGUMENT", gym.call, rpc, **fields)
    assert all(found.faults.values()), "each fault has words"
    return found


@story
def every_faulty_field_is_named_at_once_with_its_path(town):
    gym = town.gym()
    cases = [
        ("PutGym", {"gym_id": "a b", "name": "x" * 201, "time_zone": "Europe/Atlantis",
                    "overdue_grace": timedelta(seconds=-1), "overdue_scope": "family",
                    "billing_accounts": [{"provider": "stripe", "account": "acct_1"},
                                         {"provider": "strype", "account": "a.b"}],
                    "source_version": -1},
         ["gym_id", "name", "time_zone", "overdue_grace", "overdue_scope",
          "billing_accounts[1].provider", "billing_accounts[1].account", "source_version"]),
        ("PutMember", {"member_id": "", "email": "nobody", "name": "x" * 201,
                       "source_version": -1},
         ["member_id", "email", "name", "source_version"]),
        ("PutMembership", {"membership_id": "", "plan_id": "a b", "member_ids": ["ann", "", "b b"],
                           "payer_member_id": "", "starts_on": "2026-02-30", "ends_on": "soon",
                           "next_plan": {"plan_id": "", "from": "then"},
                           "billing": {"provider": "strype", "account": "", "subscription_id": "",
                                       "customer_id": "a b", "mandate_id": "é"},
                           "source_version": -1},
         ["membership_id", "plan_id", "member_ids[1]", "member_ids[2]", "payer_member_id",
          "starts_on", "ends_on", "next_plan.plan_id", "next_plan.from", "billing.provider",
          "billing.account", "billing.subscription_id", "billing.customer_id",
          "billing.mandate_id", "source_version"]),
        ("PutMembership", {"membership_id": "ms", "plan_id": "p", "starts_on": gym.today},
         ["member_ids"]),
        ("PauseMembership", {"membership_id": "", "pause_id": "", "from_": "", "until": "x",
                             "source_version": -1},
         ["membership_id", "pause_id", "from", "until", "source_version"]),
        ("ResumeMembership", {"membership_id": "", "pause_id": "", "source_version": -1},
         ["membership_id", "pause_id", "source_version"]),
        ("RequestResume", {"membership_id": "", "member_id": ""}, ["membership_id", "member_id"]),
        ("CancelMembership", {"membership_id": "", "ends_on": "x", "source_version": -1},
         ["membership_id", "ends_on", "source_version"]),
        ("RecordPayment", {"membership_id": "", "payment_id": "", "invoice_id": "",
                           "amount_minor": 0, "currency": "EURO"},
         ["membership_id", "payment_id", "invoice_id", "amount_minor", "currency", "received_at"]),
        ("ForgiveInvoice", {"membership_id": "", "invoice_id": "", "forgiveness_id": "",
                            "reason": "x" * 201, "actor": "x" * 201},
         ["membership_id", "invoice_id", "forgiveness_id", "reason", "actor"]),
        ("PutOverride", {"member_id": "", "override_id": "", "kind": "invite",
                         "reason": "x" * 201, "actor": "x" * 201},
         ["member_id", "override_id", "kind", "until", "reason", "actor"]),
        ("ClearOverride", {"member_id": "", "override_id": "", "actor": "x" * 201},
         ["member_id", "override_id", "actor"]),
        ("DeleteMember", {"gym_id": "", "member_id": ""}, ["gym_id", "member_id"]),
        ("GetMember", {"gym_id": "", "member_id": ""}, ["gym_id", "member_id"]),
        ("GetMember", {"member_id": "ann", "read_mask": {"paths": ["state", "shoe_size", "nme"]}},
         ["read_mask.paths[1]", "read_mask.paths[2]"]),
        ("ListMembers", {"status": "lazy", "reason": "rain", "page_size": 501, "page_token": "x"},
         ["status", "reason", "page_size", "page_token"]),
        ("ListMemberVersions", {"gym_id": "", "page_size": 10_001, "page_token": "x"},
         ["gym_id", "page_size", "page_token"]),
        ("RepublishGym", {"gym_id": "", "member_ids": ["ann", "b b"]}, ["gym_id", "member_ids[1]"]),
        ("ExplainMember", {"gym_id": "", "member_id": ""}, ["gym_id", "member_id"]),
        ("ExplainMember", {"member_id": "ann", "at": now() + days(3_000)}, ["at"]),
        ("ListUnmatchedBilling", {"gym_id": "a b", "page_size": -1, "page_token": "x"},
         ["gym_id", "page_size", "page_token"]),
        ("LinkBilling", {"membership_id": "", "provider": "strype", "account": "", "event_id": "",
                         "actor": "x" * 201},
         ["membership_id", "provider", "account", "event_id", "actor"]),
    ]
    for rpc, fields, names in cases:
        same((rpc, wrong(gym, rpc, **fields).fields), (rpc, names))


@story
def an_unknown_word_is_answered_with_the_words_there_are(town):
    gym = town.gym()
    faults = wrong(gym, "PutOverride", member_id="ann", override_id="o", kind="invite",
                   until=now() + days(1)).faults
    assert all(word in faults["kind"] for word in ("let_in", "bar")), faults
    faults = wrong(gym, "ListMembers", status="lazy").faults
    assert all(word in faults["status"] for word in ("pending", "active", "overdue")), faults
    faults = wrong(gym, "PutGym", overdue_scope="all", time_zone="UTC").faults
    assert all(word in faults["overdue_scope"] for word in ("member", "membership")), faults
    accounts = [{"provider": "strype", "account": "acct"}]
    faults = wrong(gym, "PutGym", time_zone="UTC", billing_accounts=accounts).faults
    words = faults["billing_accounts[0].provider"]
    assert all(word in words for word in ("stripe", "gocardless", "standard")), faults


@story
def an_id_is_1_to_64_letters_digits_underscores_and_hyphens(town):
    gym = town.gym()
    for bad in BAD[:1] + [bad for bad in BAD if bad]:
        found = wrong(gym, "GetMember", member_id=bad)
        same(found.fields, ["member_id"])
        assert not bad or bad not in found.message, "values are not repeated"
    for good in ("a", "A-1_b", "x" * 64, "-", "0"):
        gym.member(good)
        same(gym.get(good).member_id, good)


@story
def ends_come_not_before_beginnings(town):
    gym = town.gym().with_ann()
    found = refused("INVALID_ARGUMENT", gym.join, "ms", "ann", starts_on=gym.day(2),
                    ends_on=gym.day(1))
    same(found.fields, ["ends_on"])
    for until in (gym.day(2), gym.day(1)):
        found = refused("INVALID_ARGUMENT", gym.pause, "p", gym.day(2), until)
        same(found.fields, ["until"])
    for bad in ("2026-13-01", "2026-02-29", "01.02.2026", "2026-2-1", "tomorrow"):
        found = refused("INVALID_ARGUMENT", gym.pause, "p", bad)
        same(found.fields, ["from"])


@story
def text_that_no_table_can_hold_is_refused_with_its_field(town):
    gym = town.gym().with_ann()
    gym.pause("p", gym.day(-1))
    cases = [
        ("PutGym", {"name": "a\x00b", "time_zone": "UTC"}, "name"),
        ("PutMember", {"member_id": "ann", "name": "a\x00b"}, "name"),
        ("PutMember", {"member_id": "ann", "email": "a\x00b@example.com"}, "email"),
        ("PutOverride", {"member_id": "ann", "override_id": "o", "kind": "bar",
                         "until": now() + days(1), "reason": "a\x00"}, "reason"),
        ("PutOverride", {"member_id": "ann", "override_id": "o", "kind": "bar",
                         "until": now() + days(1), "actor": "a\x00"}, "actor"),
        ("ForgiveInvoice", {"membership_id": "ms", "invoice_id": "i", "forgiveness_id": "f",
                            "reason": "a\x00"}, "reason"),
        ("ListMembers", {"query": "a\x00b"}, "query"),
        ("ListMembers", {"query": "x" * 255}, "query"),
        ("ListMembers", {"page_token": "61006200"}, "page_token"),
        ("ListMemberVersions", {"page_token": "61006200"}, "page_token"),
    ]
    for rpc, fields, name in cases:
        same((rpc, wrong(gym, rpc, **fields).fields), (rpc, [name]))


@story
def who_is_not_known_is_named_where_several_are_asked_for(town):
    gym = town.gym()
    gym.member("ann")
    found = refused("NOT_FOUND", gym.join, "ms", "ann", "ann", "bob", "cat", payer_member_id="dan")
    same(found.fields, ["member_ids[2]", "member_ids[3]", "payer_member_id"])
    # Nothing of it was kept.
    same(refused("NOT_FOUND", gym.cancel).message, "the membership is not known")


@story
def instants_out_of_reach_are_refused_and_never_misread(town):
    gym = town.gym().with_ann()
    far = now().replace(year=9999)
    payment = {"membership_id": "ms", "payment_id": "pay", "amount_minor": 1, "currency": "GBP"}
    for at in ({"seconds": 10**15}, {"nanos": -1}, {"nanos": 10**9}):
        found = wrong(gym, "RecordPayment", received_at=at, **payment)
        same(found.fields, ["received_at"])
        same(wrong(gym, "ExplainMember", member_id="ann", at=at).fields, ["at"])
        found = wrong(gym, "ResumeMembership", membership_id="ms", at=at)
        same(found.fields, ["at"])
    for until in (now() - days(1), now() + days(8), far):
        found = wrong(gym, "PutOverride", member_id="ann", override_id="o", kind="bar",
                      until=until)
        same(found.fields, ["until"])
    for grace in ({"seconds": 1, "nanos": -1}, {"seconds": 10**12}, timedelta(days=367)):
        found = wrong(gym, "PutGym", time_zone="UTC", overdue_grace=grace)
        same(found.fields, ["overdue_grace"])
