"""The market's vocabulary: ids, codes, messages and records keep their forms."""

import hashlib

import msgspec
import pytest

from ledger.protocol.encoding import encode
from ledger.protocol.messages import LEDGER_MESSAGES
from ledger.protocol.transaction import Codec
from marketplace.protocol import ids, records
from marketplace.protocol.errors import MARKET_HTTP_STATUS, MarketCode
from marketplace.protocol.events import MARKET_EVENTS
from marketplace.protocol.messages import MARKET_MESSAGES, Heartbeat, PutBid, ReportDown
from marketplace.protocol.resources import Device, Group, ResourceUnit, device_id
from tests.marketplace.market.world import ADDRESS, World

LEASE = f"{ADDRESS['ann']}/7/2/1/{ADDRESS['pat']}"


def test_ids_nest() -> None:
    """A lease id holds its order's, which holds its deployment's; taking apart and putting together give the same."""
    parts = ids.parse_lease(LEASE)
    assert parts.text == LEASE
    assert parts.order == ids.order_id(*ids.parse_order(f"{ADDRESS['ann']}/7/2/1")) == f"{parts.deployment}/2/1"
    for bad in ("", "a/b", LEASE + "/1", LEASE.replace("/7/", "/x/")):
        with pytest.raises(ValueError, match=r"."):
            ids.parse_lease(bad)


def test_codes_are_never_renumbered() -> None:
    """The numbers are part of consensus."""
    assert {code.name: int(code) for code in MarketCode} == {
        "PROVIDER_NOT_FOUND": 400, "HOST_NOT_FOUND": 401, "BID_NOT_FOUND": 402, "BID_EXPIRED": 403, "OFFER_REFUSED": 404,
        "DEVICE_CLAIMED": 405, "DEVICE_IN_USE": 406, "TOO_MANY": 407, "HOST_EXISTS": 408, "BOND_TOO_SMALL": 409,
        "BOND_NOT_FOUND": 410, "DEPLOYMENT_NOT_FOUND": 450,
        "DEPLOYMENT_EXISTS": 451, "DEPLOYMENT_CLOSED": 452, "GROUP_NOT_FOUND": 453, "GROUP_REFUSED": 454, "ORDER_NOT_FOUND": 455,
        "ORDER_NOT_OPEN": 456, "BID_DOES_NOT_FIT": 457, "DEPOSIT_TOO_SMALL": 458, "LIMIT_REFUSED": 459, "LEASE_NOT_FOUND": 500,
        "LEASE_NOT_OPEN": 501, "GENERATION_MISMATCH": 502, "REPORT_REFUSED": 503, "DEVICES_MISMATCH": 504,
        "ATTESTATION_NOT_FOUND": 550,
    }  # fmt: skip
    assert all(isinstance(code, MarketCode) for code in MARKET_HTTP_STATUS)


def test_names_are_unique_and_tags_are_names() -> None:
    """A message's or event's tag is its class's name, and no two share one."""
    Codec((*LEDGER_MESSAGES, *MARKET_MESSAGES))
    for kind in (*MARKET_MESSAGES, *MARKET_EVENTS):
        assert kind.__struct_config__.tag == kind.__name__


def test_records_are_written_in_sorted_order() -> None:
    """Fields of records and events stand in order of name, as they are encoded, and a record survives its encoding."""
    kinds = [
        kind
        for kind in vars(records).values()
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__module__ == records.__name__
    ]
    for kind in (*kinds, *MARKET_EVENTS):
        names = [field.name for field in msgspec.structs.fields(kind)]
        assert names == sorted(names), kind.__name__
    world = World()
    world.provider()
    world.host()
    id = world.active()
    lease = world.lease(id)
    assert msgspec.json.decode(encode(lease), type=records.Lease) == lease


def test_limits_are_held_at_the_edge() -> None:
    """What is over a field's limit is not decoded: sizes, counts, patterns, unknown fields."""
    good = encode(ResourceUnit(count=1, cpu_milli=1, memory=1))
    assert msgspec.json.decode(good, type=ResourceUnit).ports == 0
    for kind, document in (
        (ResourceUnit, b'{"count":0,"cpu_milli":1,"memory":1}'),
        (ResourceUnit, b'{"count":1,"cpu_milli":10000001,"memory":1}'),
        (ResourceUnit, b'{"count":1,"cpu_milli":1,"memory":1,"state":"x"}'),
        (Group, b'{"limit_per_hour":"-1","name":"g","resources":[{"count":1,"cpu_milli":1,"memory":1}]}'),
        (Group, b'{"limit_per_hour":"1","name":"g","resources":[]}'),
        (Group, b'{"limit_per_hour":"1.5","name":"g","resources":[{"count":1,"cpu_milli":1,"memory":1}]}'),
        (Heartbeat, b'{"hosts":[],"type":"Heartbeat"}'),
        (Heartbeat, b'{"hosts":["../etc"],"type":"Heartbeat"}'),
        (Heartbeat, b'{"hosts":["h1\\n"],"type":"Heartbeat"}'),
        (Device, b'{"id":"zz","model":"h100","vendor":"nvidia","vram_mib":1}'),
        (ReportDown, b'{"generation":1,"lease":"x","reason":"xid","since_ms":0,"type":"ReportDown"}'),
    ):
        with pytest.raises(msgspec.ValidationError):
            msgspec.json.decode(document, type=kind)
    assert PutBid.__struct_config__.forbid_unknown_fields


def test_a_device_id_is_a_hash_of_chain_and_uuid() -> None:
    """It does not show the UUID, differs between chains, and never changes."""
    parts = (b"chain-a", b"GPU-0")
    by_hand = hashlib.sha256(b"gpubid/device/v1\0" + b"".join(len(part).to_bytes(8, "big") + part for part in parts)).hexdigest()
    assert device_id("chain-a", "GPU-0") == by_hand
    assert device_id("chain-b", "GPU-0") != by_hand
