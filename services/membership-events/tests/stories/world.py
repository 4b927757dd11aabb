"""The words that stories use: a town with its server and bus, and gyms in it.

A gym is new in each story. Its zone is, where a story does not say otherwise, one in which it is
about noon, so that no midnight comes by while a story is told.
"""
import asyncio
import itertools
import json
import threading
import time
import uuid
from datetime import date, datetime, timedelta, timezone
from types import SimpleNamespace
from zoneinfo import ZoneInfo

import grpc
import nats
from google.protobuf import json_format
from google.rpc import error_details_pb2, status_pb2
from gymflow.billing.v1 import billing_pb2
from gymflow.membership.v1 import events_pb2, service_pb2, service_pb2_grpc

STORIES = []
LIMIT = 20


def story(function):
    """A story is a function of the town; its name is the sentence it tells."""
    STORIES.append(function)
    return function


def waits(function):
    """A story in which time has to pass."""
    function.waits = True
    return function


def now():
    return datetime.now(timezone.utc)


def days(count):
    return timedelta(days=count)


def until(what, look):
    """Waits until `look` answers something, and answers it."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        if found := look():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {LIMIT} s: {what}")


class Refused(AssertionError):
    """A call that was refused, as a client sees it."""

    def __init__(self, error):
        super().__init__(f"{error.code().name}: {error.details()}")
        self.code = error.code().name
        self.message = error.details()
        self.details = list(details_of(error))
        self.faults = {
            violation.field: violation.description
            for detail in self.details
            if isinstance(detail, error_details_pb2.BadRequest)
            for violation in detail.field_violations
        }
        self.fields = list(self.faults)


def details_of(error):
    """google.rpc details out of the trailing `grpc-status-details-bin`."""
    trailing = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailing.get("grpc-status-details-bin", b""))
    for packed in status.details:
        name = packed.type_url.rsplit(".", 1)[-1]
        detail = getattr(error_details_pb2, name)()
        assert packed.Unpack(detail), packed.type_url
        yield detail


def refused(code, call, *arguments, **fields):
    """The refusal, with this code, of what must not be done."""
    try:
        answer = call(*arguments, **fields)
    except Refused as refusal:
        assert refusal.code == code, refusal
        return refusal
    raise AssertionError(f"not refused: {answer}")


def wire(value):
    """A value as a message's field has it."""
    if isinstance(value, date) and not isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, dict):
        return {name: wire(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [wire(inner) for inner in value]
    return value


class Bus:
    """NATS, as a neighbour of the service uses it."""

    def __init__(self, url):
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()
        self.nats = self.wait(nats.connect(url))
        self.jetstream = self.nats.jetstream()

    def wait(self, work):
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(LIMIT)

    def publish(self, subject, message, ce_id, about):
        """Puts a message on its stream as our services do; its sequence there. The bus itself is
        kept from trimming repeats, so that the service has to know them."""
        headers = {
            "ce-specversion": "1.0",
            "ce-id": ce_id,
            "ce-type": message.DESCRIPTOR.full_name,
            "ce-source": "/stories",
            "ce-time": now().isoformat().replace("+00:00", "Z"),
            "ce-subject": about,
            "Nats-Msg-Id": uuid.uuid4().hex,
        }
        body = json_format.MessageToJson(message).encode()
        return self.wait(self.jetstream.publish(subject, body, headers=headers)).seq

    def forget_repeats(self, stream, subject):
        """Lets the server forget which messages it has had: it would trim what is sent again. Only
        for a moment, as the service counts on it; messages on `subject` show when it has."""
        known = {"Nats-Msg-Id": uuid.uuid4().hex}

        def forgotten():
            return not self.wait(self.jetstream.publish(subject, b"", headers=known)).duplicate

        forgotten()
        held = self.reconfigure(stream, duplicate_window=100_000_000)["duplicate_window"]
        until("repeats are forgotten", forgotten)
        self.reconfigure(stream, duplicate_window=held)

    def reconfigure(self, stream, **changes):
        """Changes a stream's settings; what they were."""
        asked = self.wait(self.nats.request(f"$JS.API.STREAM.INFO.{stream}", b""))
        config = json.loads(asked.data)["config"]
        body = json.dumps({**config, **changes}).encode()
        answer = self.wait(self.nats.request(f"$JS.API.STREAM.UPDATE.{stream}", body))
        assert "error" not in json.loads(answer.data), answer.data
        return config

    def until_taken(self, stream, consumer, sequence):
        """Waits until this consumer is done with everything up to a message."""

        def look():
            info = self.wait(self.jetstream.consumer_info(stream, consumer))
            return info.ack_floor.stream_seq >= sequence

        until(f"{stream} {sequence} is taken in", look)

    def list(self, stream, subject, kind):
        """What is on a subject, oldest first."""
        return [json_format.Parse(body, kind()) for body in self.bodies(stream, subject)]

    def bodies(self, stream, subject):
        found, sequence = [], 1
        while True:
            try:
                raw = self.wait(
                    self.jetstream.get_msg(stream, seq=sequence, subject=subject, next=True)
                )
            except nats.js.errors.NotFoundError:
                return found
            found.append(raw.data)
            sequence = raw.seq + 1


class Town:
    """One running service."""

    def __init__(self, address, bus, tokens):
        self.address, self.bus, self.tokens = address, bus, tokens
        # A connection of its own.
        self.channel = grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)])
        grpc.channel_ready_future(self.channel).result(LIMIT)
        self.stub = service_pb2_grpc.MembershipServiceStub(self.channel)

    def call(self, rpc, token="service", timeout=LIMIT, behind=None, **fields):
        """Calls with these fields; dates and instants are Python's. `behind` it is a person."""
        fields = {name.rstrip("_"): wire(value) for name, value in fields.items()}
        request = getattr(service_pb2, f"{rpc}Request")(
            **{name: value for name, value in fields.items() if value is not None}
        )
        return self.send(rpc, request, token, timeout, behind)

    def send(self, rpc, request, token="service", timeout=LIMIT, behind=None):
        metadata = [] if token is None else [("authorization", f"Bearer {self.tokens[token]}")]
        if behind:
            metadata.append(("x-gymflow-actor", behind))
        try:
            answer = getattr(self.stub, rpc)(request, timeout=timeout, metadata=metadata)
            return answer if hasattr(answer, "DESCRIPTOR") else list(answer)
        except grpc.RpcError as error:
            raise Refused(error) from None

    def gym(self, **rules):
        return Gym(self, **rules)

    def neighbour(self):
        """The same, over another connection."""
        return Town(self.address, self.bus, self.tokens)


class Gym:
    """A gym with one provider account of its own."""

    def __init__(self, town, zone=None, **rules):
        self.town, self.bus = town, town.bus
        self.id = f"g-{uuid.uuid4().hex[:16]}"
        self.account = f"acct_{self.id}"
        self.numbers = itertools.count(1)
        # Etc/GMT-3 is three hours ahead of UTC.
        ahead = 12 - now().hour
        self.zone_name = zone or f"Etc/GMT{-ahead:+d}"
        self.zone = ZoneInfo(self.zone_name)
        self.put(**rules)

    @property
    def today(self):
        return now().astimezone(self.zone).date()

    def day(self, count):
        return self.today + days(count)

    def begins(self, day):
        """The first instant of a day in the gym's zone, found the slow way."""
        about = datetime(day.year, day.month, day.day, tzinfo=self.zone)
        instant = about.astimezone(timezone.utc) - timedelta(hours=3)
        while instant.astimezone(self.zone).date() < day:
            instant += timedelta(minutes=15)
        return instant

    def next(self):
        """The next source version."""
        return next(self.numbers)

    def call(self, rpc, **fields):
        request = getattr(service_pb2, f"{rpc}Request")
        fields.setdefault("gym_id", self.id)
        if "source_version" in request.DESCRIPTOR.fields_by_name:
            fields.setdefault("source_version", self.next())
        return self.town.call(rpc, **fields)

    def put(self, **rules):
        rules.setdefault("name", "Iron")
        rules.setdefault("time_zone", self.zone_name)
        rules.setdefault("billing_accounts", [{"provider": "stripe", "account": self.account}])
        return self.call("PutGym", **rules)

    def member(self, *members):
        for member in members:
            email = f"{member}@{self.id}.example.com"
            self.call("PutMember", member_id=member, email=email, name=f"Person {member}")

    def join(self, membership, *holders, **changes):
        """PutMembership on `gold` with a subscription of its own, running since 40 days ago."""
        changes.setdefault("plan_id", "gold")
        changes.setdefault("starts_on", self.day(-40))
        changes.setdefault("billing", self.reference(f"sub_{membership}"))
        return self.call(
            "PutMembership", membership_id=membership, member_ids=list(holders), **changes
        )

    def reference(self, subscription):
        return {
            "provider": "stripe",
            "account": self.account,
            "subscription_id": subscription,
        }

    def with_ann(self, **changes):
        """Ann, and her membership `ms`."""
        self.member("ann")
        self.join("ms", "ann", **changes)
        return self

    def pause(self, pause, from_, until=None, membership="ms", **more):
        return self.call(
            "PauseMembership",
            membership_id=membership,
            pause_id=pause,
            from_=from_,
            until=until,
            **more,
        )

    def resume(self, membership="ms", **fields):
        return self.call("ResumeMembership", membership_id=membership, **fields)

    def cancel(self, membership="ms", **fields):
        return self.call("CancelMembership", membership_id=membership, **fields)

    def bill(self, kind, at=None, of="ms", account=None, provider="stripe", **fields):
        """What a provider says, on BILLING; comes back when it has been taken in."""
        event = billing_pb2.BillingEvent(
            event_id=f"evt_{uuid.uuid4().hex}",
            provider=provider,
            account=account or self.account,
            kind=kind,
            occurred_at=at or now(),
        )
        fields.setdefault("subscription_id", of and f"sub_{of}")
        event.MergeFrom(
            billing_pb2.BillingEvent(**{n: v for n, v in fields.items() if v is not None})
        )
        return self.say(event)

    def say(self, event):
        subject = f"billing.v1.{event.provider}.{event.account}.{event.kind}"
        about = f"{event.provider}/{event.account}"
        sequence = self.bus.publish(subject, event, f"{about}/{event.event_id}", about)
        self.bus.until_taken("BILLING", "membership-events", sequence)
        return event

    def invoice(self, kind, invoice, amount=4_000, at=None, **fields):
        """What a provider says of an invoice of 4,000 pence."""
        fields.setdefault("currency", "GBP")
        if kind == "payment_failed":
            fields.setdefault("amount_due_minor", 4_000)
        return self.bill(kind, at, invoice_id=invoice, amount_minor=amount, **fields)

    def fails(self, invoice, **fields):
        return self.invoice("payment_failed", invoice, **fields)

    def get(self, member="ann", *paths):
        mask = {"paths": list(paths)} if paths else None
        return self.call("GetMember", member_id=member, read_mask=mask)

    def state(self, member="ann"):
        return self.get(member).state

    def explain(self, at=None, member="ann"):
        return self.call("ExplainMember", member_id=member, at=at)

    def then(self, at, member="ann"):
        """The state at an instant, as ExplainMember tells it."""
        return self.explain(at, member).state

    def published(self, member="ann"):
        """What is on the bus about a member, oldest first."""
        subject = f"membership.v1.{self.id}.{member}"
        return self.bus.list("MEMBERSHIP", subject, events_pb2.MembershipStatusChanged)

    def until_published(self, version, member="ann"):
        """The message of a version, once it is on the bus."""

        def look():
            return [state for state in self.published(member) if state.version == version]

        return until(f"version {version} of {member} is published", look)[0]


def look(state, membership="ms"):
    """What a state says of one membership, and of the member."""
    held = {one.membership_id: one for one in state.memberships}
    one = held.get(membership)
    return SimpleNamespace(
        allowed=state.allowed,
        reasons=list(state.reasons),
        status=one and one.status,
        why=one and list(one.reasons),
        opens=one and one.gives_access,
        plan=one and one.plan_id,
        plans=[plan.plan_id for plan in state.plans],
    )


def same(found, wanted):
    assert found == wanted, f"{found!r} is not {wanted!r}"


def moment(stamp):
    """A Timestamp as an instant of Python's, to the microsecond."""
    return stamp.ToDatetime(tzinfo=timezone.utc)
