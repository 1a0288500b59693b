"""A verifier of proofs and a builder of roots that share nothing with the product: from the specification alone."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey


def h(*parts: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(b"".join(parts)).digest()


def canonical(value: object) -> bytes:
    """Sorted keys, no spaces, UTF-8: RFC 8785 for texts, integers, booleans and null."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def tree_root(records: dict[str, bytes]) -> bytes:
    """R over all records (key to canonical value), from scratch."""
    buckets: dict[int, list[tuple[bytes, bytes]]] = {}
    for key, value in records.items():
        kh = h(b"\x10", key.encode())
        buckets.setdefault(int.from_bytes(kh[:2], "big"), []).append((kh, h(b"\x00", value)))
    row = [
        h(b"\x02", *(kh + vh for kh, vh in sorted(buckets[number]))) if number in buckets else bytes(32)
        for number in range(65536)
    ]
    while len(row) > 1:
        row = [h(b"\x01", *row[at : at + 16]) for at in range(0, len(row), 16)]
    return row[0]


def minute_root(ids: Iterable[str]) -> bytes:
    """S_m over the ids of one minute in order of application."""
    return h(b"\x03", *(bytes.fromhex(id) for id in ids))


def state_root(records: dict[str, bytes], minutes: dict[int, list[str]]) -> str:
    """The state root in hex, from scratch."""
    ends = b"".join(m.to_bytes(8, "big") + minute_root(minutes[m]) for m in sorted(minutes))
    return h(b"\x04", tree_root(records), ends).hex()


def verify(proof: dict[str, object], root: str) -> bool:
    """True where a proof in its JSON form shows what it says under the root (hex)."""
    key, value, bucket = str(proof["key"]), proof["value"], bytes.fromhex(str(proof["bucket"]))
    kh = h(b"\x10", key.encode())
    if len(bucket) % 64:
        return False
    entries = [(bucket[at : at + 32], bucket[at + 32 : at + 64]) for at in range(0, len(bucket), 64)]
    names = [name for name, _ in entries]
    if names != sorted(set(names)) or any(name[:2] != kh[:2] for name in names):
        return False
    wanted = None if value is None else h(b"\x00", str(value).encode())
    if dict(entries).get(kh) != wanted:
        return False
    digest = h(b"\x02", bucket) if bucket else bytes(32)
    place = int.from_bytes(kh[:2], "big")
    levels = proof["levels"]
    assert isinstance(levels, list)
    if len(levels) != 4:
        return False
    default = bytes(32)
    for level in levels:
        own, place = place % 16, place // 16
        siblings = bytes.fromhex(level["siblings"])
        children = []
        for i in range(16):
            if i == own:
                if level["present"] >> i & 1:
                    return False
                children.append(digest)
            elif level["present"] >> i & 1:
                if len(siblings) < 32:
                    return False
                children.append(siblings[:32])
                siblings = siblings[32:]
            else:
                children.append(default)
        if siblings:
            return False
        digest = h(b"\x01", *children)
        default = h(b"\x01", default * 16)
    minutes = proof["minutes"]
    assert isinstance(minutes, list)
    order = [item["minute"] for item in minutes]
    if order != sorted(set(order)):
        return False
    ends = b"".join(item["minute"].to_bytes(8, "big") + bytes.fromhex(item["root"]) for item in minutes)
    return h(b"\x04", digest, ends).hex() == root


def signed(statement: Mapping[str, Any]) -> bool:
    """True where a signed receipt or checkpoint in its JSON form is signed by the key that it names."""
    kind = "receipt" if "receipt" in statement else "checkpoint"
    said = canonical(statement[kind])
    content = h(f"gpubid/{kind}/v1".encode(), b"\0", len(said).to_bytes(8, "big"), said)
    try:
        key = Ed25519PublicKey.from_public_bytes(bytes.fromhex(statement["node_key"]))
        key.verify(bytes.fromhex(statement["signature"]), content)
    except (InvalidSignature, ValueError):
        return False
    return True
