"""Canonical bytes: JSON with sorted keys, integers only, equal to RFC 8785 on the subset we accept.

Keys are ASCII, integers lie within ±(2^53 - 1) in everything that is signed, amounts are decimal strings, and
no type that is signed has a float. What is received must equal what we would have written, byte for byte:
duplicate keys, spaces and other spellings of one value are refused that way.
"""

import hashlib
from typing import Final

import msgspec

_ENCODER: Final = msgspec.json.Encoder(order="sorted")

MAX_DEPTH: Final = 32
"""Deepest nesting of a document that is decoded at all."""


def encode(value: object) -> bytes:
    """Return the canonical bytes of a Struct, mapping, sequence, string, integer, boolean or None."""
    return _ENCODER.encode(value)


def domain(tag: str) -> bytes:
    """Return what a digest begins with."""
    return b"gpubid/" + tag.encode("ascii") + b"\0"


def digest(tag: str, *parts: bytes) -> bytes:
    """SHA-256 over a domain tag and `parts`, each prefixed with its length: 32 bytes.

    The tag keeps a signature made for one purpose from being taken for another.
    """
    hasher = hashlib.sha256(domain(tag))
    for part in parts:
        hasher.update(len(part).to_bytes(8, "big"))
        hasher.update(part)
    return hasher.digest()


def too_deep(raw: bytes) -> bool:
    """True where brackets in `raw` nest deeper than `MAX_DEPTH`, outside strings; never recurses."""
    depth = 0
    in_string = False
    escaped = False
    for byte in raw:
        if in_string:
            if escaped:
                escaped = False
            elif byte == 0x5C:
                escaped = True
            elif byte == 0x22:
                in_string = False
        elif byte == 0x22:
            in_string = True
        elif byte in (0x5B, 0x7B):
            depth += 1
            if depth > MAX_DEPTH:
                return True
        elif byte in (0x5D, 0x7D):
            depth -= 1
    return False
