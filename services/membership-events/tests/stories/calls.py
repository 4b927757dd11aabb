"""Who may call, what stands beside the service, and what a second or an older call does."""
import grpc
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import (
    ProtoReflectionDescriptorDatabase,
)
from gymflow.membership.v1 import service_pb2
from world import refused, same, story

SERVICE = "gymflow.membership.v1.MembershipService"
RPCS = [method.name for method in service_pb2.DESCRIPTOR.services_by_name["MembershipService"].methods]
PROGRESS = {"ImportRoster"}


@story
def nobody_but_a_service_may_call_any_rpc(town):
    for rpc in RPCS:
        request = getattr(service_pb2, f"{rpc}Request")()
        asked = iter([request]) if rpc in PROGRESS else request
        for token, code in [
            (None, "UNAUTHENTICATED"),
            ("nonsense", "UNAUTHENTICATED"),
            ("forged", "UNAUTHENTICATED"),
            ("old", "UNAUTHENTICATED"),
            ("member", "PERMISSION_DENIED"),
            ("staff", "PERMISSION_DENIED"),
        ]:
            try:
                refused(code, town.send, rpc, asked, token)
            except AssertionError as error:
                raise AssertionError(f"{rpc} with {token}: {error}") from error


@story
def what_is_another_gyms_is_not_known_in_this_one(town):
    mine, other = town.gym().with_ann(), town.gym()
    other.member("eve")
    for call, name in [
        (lambda: other.get("ann"), "member"),
        (lambda: other.explain(member="ann"), "member"),
        (lambda: other.cancel("ms"), "membership"),
        (lambda: other.pause("p", other.today), "membership"),
        (lambda: other.resume(), "membership"),
        (lambda: other.call("DeleteMember", member_id="ann"), "member"),
        (lambda: other.join("ms2", "ann"), "member"),
    ]:
        same(refused("NOT_FOUND", call).message, f"the {name} is not known")
    assert mine.state().allowed
    same([one.member_id for one in other.call("ListMembers").members], ["eve"])


@story
def a_gym_that_nobody_put_is_not_known_to_any_rpc(town):
    gym = town.gym()
    gym.id = "g-nobodys"
    for call in [
        lambda: gym.member("ann"),
        lambda: gym.join("ms", "ann"),
        lambda: gym.pause("p", gym.today),
        lambda: gym.resume(),
        lambda: gym.cancel(),
        lambda: gym.get(),
        lambda: gym.explain(),
        lambda: gym.call("DeleteMember", member_id="ann"),
        lambda: gym.call("RepublishGym"),
        lambda: gym.call("ListMembers"),
        lambda: gym.call("ListMemberVersions"),
        lambda: gym.call("ListUnmatchedBilling"),
        lambda: gym.call("RequestResume", membership_id="ms", member_id="ann"),
        lambda: gym.call("ClearOverride", member_id="ann", override_id="o"),
        lambda: gym.call("ForgiveInvoice", membership_id="ms", invoice_id="i", forgiveness_id="f"),
    ]:
        wrong = refused("NOT_FOUND", call)
        assert "gym" in wrong.message or wrong.message == "the member is not known", wrong


@story
def health_is_told_without_a_token_for_the_server_and_for_the_service(town):
    stub = health_pb2_grpc.HealthStub(town.channel)
    for name in ("", SERVICE):
        answer = stub.Check(health_pb2.HealthCheckRequest(service=name), timeout=10)
        same(answer.status, health_pb2.HealthCheckResponse.SERVING)
    try:
        stub.Check(health_pb2.HealthCheckRequest(service="gymflow.other.v1.Other"), timeout=10)
        raise AssertionError("an unknown service is healthy")
    except grpc.RpcError as error:
        same(error.code(), grpc.StatusCode.NOT_FOUND)
    watched = stub.Watch(health_pb2.HealthCheckRequest(), timeout=10)
    same(next(watched).status, health_pb2.HealthCheckResponse.SERVING)
    watched.cancel()


@story
def reflection_tells_this_service_whole_and_no_other(town):
    database = ProtoReflectionDescriptorDatabase(town.channel)
    names = sorted(database.get_services())
    assert SERVICE in names
    others = [name for name in names if name.startswith("gymflow.") and name != SERVICE]
    same(others, [])
    pool = descriptor_pool.DescriptorPool(database)
    told = pool.FindServiceByName(SERVICE)
    same(sorted(method.name for method in told.methods), sorted(RPCS))
    same(
        [field.name for field in told.methods_by_name["PutGym"].input_type.fields],
        [field.name for field in service_pb2.PutGymRequest.DESCRIPTOR.fields],
    )


@story
def a_write_that_comes_twice_changes_nothing_the_second_time(town):
    gym = town.gym()
    number = gym.next()
    gym.with_ann()
    writes = [
        ("PutGym", {"name": "Iron", "time_zone": gym.zone_name,
                    "billing_accounts": [{"provider": "stripe", "account": gym.account}]}),
        ("PutMember", {"member_id": "ann", "email": "a@example.com", "name": "Ann"}),
        ("PutMembership", {"membership_id": "ms", "plan_id": "gold", "member_ids": ["ann"],
                           "starts_on": gym.day(-40), "billing": gym.reference("sub_ms")}),
        ("PauseMembership", {"membership_id": "ms", "pause_id": "p", "from_": gym.day(-1)}),
        ("ResumeMembership", {"membership_id": "ms", "pause_id": "p"}),
        ("CancelMembership", {"membership_id": "ms"}),
        ("CancelMembership", {"membership_id": "ms", "take_back": True}),
    ]
    for rpc, fields in writes:
        number = gym.next()
        first = gym.call(rpc, source_version=number, **fields)
        held = gym.get()
        again = gym.call(rpc, source_version=number, **fields)
        same((first.applied, again.applied), (True, True))
        same((first.source_version, again.source_version), (number, number))
        same(gym.get(), held)
    gym.until_published(gym.state().version)
    # Where nothing changed there is no version, and no message.
    versions = [state.version for state in gym.published()]
    same(versions, sorted(set(versions)))


@story
def an_older_write_is_answered_with_what_is_held_and_changes_nothing(town):
    gym = town.gym().with_ann()
    gym.pause("p", gym.day(-1), source_version=500)
    gym.call("PutMember", member_id="ann", name="New", email="n@example.com", source_version=500)
    gym.join("ms", "ann", source_version=500)
    gym.put(source_version=500)
    held = gym.get()
    for rpc, fields in [
        ("PutGym", {"name": "Old", "time_zone": "Asia/Tokyo"}),
        ("PutMember", {"member_id": "ann", "name": "Old"}),
        ("PutMembership", {"membership_id": "ms", "plan_id": "old", "member_ids": ["ann"],
                           "starts_on": gym.day(-1)}),
        ("CancelMembership", {"membership_id": "ms"}),
        ("CancelMembership", {"membership_id": "ms", "take_back": True}),
        ("PauseMembership", {"membership_id": "ms", "pause_id": "p", "from_": gym.day(-1),
                             "until": gym.today}),
        ("ResumeMembership", {"membership_id": "ms", "pause_id": "p"}),
    ]:
        answer = gym.call(rpc, source_version=499, **fields)
        same((rpc, answer.applied, answer.source_version), (rpc, False, 500))
        same(gym.get(), held)


@story
def source_versions_are_compared_per_entity(town):
    gym = town.gym()
    gym.with_ann()
    gym.join("ms", "ann", source_version=900)
    # Another pause, another person, another membership: each has numbers of its own.
    assert gym.pause("p", gym.day(-1), source_version=1).applied
    assert gym.pause("q", gym.day(-1), source_version=7).applied
    assert not gym.pause("q", gym.day(-1), gym.day(3), source_version=6).applied
    assert gym.resume(pause_id="p", source_version=2).applied
    gym.member("bob")
    assert gym.join("other", "bob", source_version=3).applied
    same(gym.cancel(source_version=899).applied, False)
    same(gym.cancel("other", source_version=4).applied, True)
