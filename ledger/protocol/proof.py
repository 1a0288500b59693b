"""Proofs that a record is in the state, or is not, for a client that trusts only a block's header.

H is SHA-256. `kh = H(0x10 ‖ key)`, `vh = H(0x00 ‖ canonical value)`. The first 16 bits of `kh` name a bucket,
`0x02 ‖ kh₁‖vh₁ ‖ …` in ascending order of `kh`; its digest is H of that, or 32 zero bytes when empty. Four levels of
16 children lie above, node = `H(0x01 ‖ 16 × 32 bytes)`. With (m, S_m) for the ids of transactions by the minute their
validity ends in, `state_root = H(0x04 ‖ R ‖ u64be(m) ‖ S_m ‖ …)`, m ascending. Absence is shown by the whole bucket.
"""

from collections.abc import Iterable
from hashlib import sha256
from typing import Annotated, Final

import msgspec

from ledger.protocol.keys import HashHex

LEVELS: Final = 4
EMPTY: Final = bytes(32)
MAX_BUCKET: Final = 65_536
"""Most entries of a bucket that a verifier takes in."""


def key_hash(key: str) -> bytes:
    """Return kh of a full key, `table/key`."""
    return sha256(b"\x10" + key.encode()).digest()


def value_hash(value: bytes) -> bytes:
    """Return vh of a record's canonical bytes."""
    return sha256(b"\x00" + value).digest()


def state_root(records: bytes, minutes: Iterable[tuple[int, bytes]]) -> bytes:
    """Return the root over the records' root R and (m, S_m) in ascending order of m."""
    hasher = sha256(b"\x04" + records)
    for minute, root in minutes:
        hasher.update(minute.to_bytes(8, "big") + root)
    return hasher.digest()


def _defaults() -> list[bytes]:
    out = [EMPTY]
    for _ in range(LEVELS):
        out.append(sha256(b"\x01" + out[-1] * 16).digest())
    return out


DEFAULTS: Final = tuple(_defaults())
"""Digest of an empty bucket, then of empty subtrees of each height."""


class ProofLevel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The other 15 children of a node: bit i of `present` is set where child i is named in `siblings` (hex)."""

    present: Annotated[int, msgspec.Meta(ge=0, le=65_535)]
    siblings: Annotated[str, msgspec.Meta(max_length=15 * 64, pattern=r"^([0-9a-f]{64})*\Z")]


class ProofMinute(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """S_m of the ids whose validity ends in minute m."""

    minute: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    root: HashHex


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """That the record `key` (`table/key`) has the canonical JSON `value`, or (None) that there is no such record."""

    bucket: Annotated[str, msgspec.Meta(max_length=128 * MAX_BUCKET, pattern=r"^([0-9a-f]{128})*\Z")]
    key: str
    levels: tuple[ProofLevel, ...]
    minutes: tuple[ProofMinute, ...]
    value: str | None = None


def build(
    key: str, value: bytes | None, bucket: bytes, path: list[tuple[int, list[bytes]]], minutes: list[tuple[int, bytes]]
) -> Proof:
    """Put a proof together from a bucket's entries and (place, 16 children) of each level above it."""
    levels = []
    for height, (place, children) in enumerate(path):
        named = [i for i in range(16) if i != place and children[i] != DEFAULTS[height]]
        siblings = "".join(children[i].hex() for i in named)
        levels.append(ProofLevel(present=sum(1 << i for i in named), siblings=siblings))
    return Proof(
        bucket=bucket.hex(),
        key=key,
        levels=tuple(levels),
        minutes=tuple(ProofMinute(minute=m, root=root.hex()) for m, root in minutes),
        value=None if value is None else value.decode(),
    )


def verify(proof: Proof, root: str) -> bool:
    """True where the proof holds under the state root `root` (hex) of a block's header."""
    try:
        entries = bytes.fromhex(proof.bucket)
        kh = key_hash(proof.key)
    except ValueError:
        return False
    if len(entries) % 64 or len(proof.levels) != LEVELS:
        return False
    digest = _bucket_digest(entries, kh, None if proof.value is None else value_hash(proof.value.encode()))
    number = int.from_bytes(kh[:2], "big")
    for height, level in enumerate(proof.levels):
        if digest is None:
            return False
        digest = _node(digest, number & 15, level, DEFAULTS[height])
        number >>= 4
    minutes = [item.minute for item in proof.minutes]
    if digest is None or minutes != sorted(set(minutes)):
        return False
    return state_root(digest, [(item.minute, bytes.fromhex(item.root)) for item in proof.minutes]).hex() == root


def _bucket_digest(entries: bytes, kh: bytes, vh: bytes | None) -> bytes | None:
    """Digest of a bucket that shows kh with vh (None: without kh) and is in order; None where it does not."""
    found = None
    last = b""
    for at in range(0, len(entries), 64):
        name = entries[at : at + 32]
        if name <= last or name[:2] != kh[:2]:
            return None
        last = name
        if name == kh:
            found = entries[at + 32 : at + 64]
    if found != vh:
        return None
    return sha256(b"\x02" + entries).digest() if entries else EMPTY


def _node(digest: bytes, place: int, level: ProofLevel, default: bytes) -> bytes | None:
    """Digest of a node of which child `place` has `digest`; None where the siblings do not match their bitmap."""
    siblings = bytes.fromhex(level.siblings)
    if level.present >> place & 1 or level.present.bit_count() * 32 != len(siblings):
        return None
    children = []
    at = 0
    for i in range(16):
        if i == place:
            children.append(digest)
        elif level.present >> i & 1:
            children.append(siblings[at : at + 32])
            at += 32
        else:
            children.append(default)
    return sha256(b"\x01" + b"".join(children)).digest()
