"""Signed transactions against damage and hostile bytes."""

import hashlib
import json
import random
import timeit
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.protocol import keys
from ledger.protocol.encoding import encode
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.messages import LEDGER_MESSAGES, Transfer
from ledger.protocol.transaction import (
    MAX_BYTES,
    MAX_MESSAGES,
    Codec,
    Transaction,
    sign_transaction,
    signed_content,
    signing_bytes,
)
from tests.ledger.machine.chain import ADA, BOB, CHAIN, START, refused

CODEC = Codec(LEDGER_MESSAGES)


def signed(count: int = 1) -> bytes:
    """A good transaction of `count` transfers."""
    message = Transfer(amount="5", denomination="ucredit", to=BOB.address)
    transaction = Transaction(
        chain_id=CHAIN,
        messages=(message,) * count,
        nonce="0123456789abcdef" * 2,
        principal=ADA.address,
        sequence=0,
        signer=ADA.key,
        valid_until=START,
    )
    return sign_transaction(transaction, ADA.seed)


GOOD = signed()


def taken(raw: bytes) -> bool:
    """True where the bytes decode and the signature is good, found out in both orders."""
    content = signed_content(raw)
    try:
        found = CODEC.decode(raw)
    except Rejected as error:
        if error.code in (Code.MALFORMED, Code.TOO_LARGE):
            return False
        raise
    good = found.signature_is_good()
    assert content == (found.signed_bytes if good else b""), "what is verified before decoding is what is decoded"
    assert not good or CODEC.decode(raw, content) == found
    return good


def test_the_good_one_is_taken() -> None:
    """Decoding gives back what was signed, and the id is the hash of the content alone."""
    found = CODEC.decode(GOOD)
    assert taken(GOOD)
    assert found.raw == GOOD
    assert found.transaction.messages == (Transfer(amount="5", denomination="ucredit", to=BOB.address),)
    other = GOOD.replace(GOOD[14:142], b"0" * 128)
    assert CODEC.decode(other).id == found.id


def test_every_single_bit_flip_is_refused() -> None:
    """No bit of the signed bytes can be changed."""
    for at in range(len(GOOD)):
        for bit in range(8):
            assert not taken(GOOD[:at] + bytes([GOOD[at] ^ 1 << bit]) + GOOD[at + 1 :]), (at, bit)


def test_what_is_signed_is_what_is_decoded() -> None:
    """Nobody gets bytes verified that are not those of the transaction, or by a key that is not its signer's."""
    envelope = json.loads(GOOD)
    own = keys.public_key(BOB.seed).hex()
    # A signature with something behind it moves what is hashed; it signs just that.
    for extra in (b"00", b'","transaction":', b"0" * 16):
        shifted = extra + GOOD[142:]
        forged = keys.sign(ADA.seed, signing_bytes(shifted[16:-1])).hex().encode()
        assert not taken(GOOD[:14] + forged + shifted)
    # Another's key, in a text that stands behind or before the signer's.
    lure = f'"signer":"{own}","valid_until":1'
    for name in ("denomination", "to"):
        text = json.loads(GOOD)["transaction"]
        text["messages"][0][name] = lure
        raw = encode(text)
        signature = keys.sign(BOB.seed, signing_bytes(raw)).hex()
        assert not taken(b'{"signature":"' + signature.encode() + b'","transaction":' + raw + b"}")
    for change in ({"signature": GOOD[14:142].decode().upper()}, {"signature": envelope["signature"][:-2]}, {"signature": ""}):
        assert not taken(encode(envelope | change))
    assert signed_content(GOOD.replace(own.encode(), own.upper().encode())) in (b"", CODEC.decode(GOOD).signed_bytes)


def test_every_cut_is_refused() -> None:
    """No part of it is one."""
    for at in range(len(GOOD)):
        assert not taken(GOOD[:at])
        assert not taken(GOOD[at + 1 :])


def respelled(change: Callable[[dict[str, object]], object]) -> bytes:
    """The good transaction after a change of its JSON."""
    value = json.loads(GOOD)
    changed = change(value)
    return json.dumps(value if changed is None else changed, sort_keys=True, separators=(",", ":")).encode()


HOSTILE = {
    "empty": b"",
    "null": b"null",
    "array": b"[]",
    "number": b"1e999",
    "two documents": GOOD + GOOD,
    "a space at the end": GOOD + b" ",
    "a space inside": GOOD.replace(b":", b": ", 1),
    "a byte order mark": b"\xef\xbb\xbf" + GOOD,
    "another order": json.dumps(dict(reversed(json.loads(GOOD).items())), separators=(",", ":")).encode(),
    "a key twice": GOOD.replace(b'"sequence":0', b'"sequence":0,"sequence":0'),
    "a key twice, hidden": GOOD.replace(b'"amount":"5"', b'"amount":"6","amount":"5"'),
    "an unknown key": GOOD.replace(b'"sequence":0', b'"sequence":0,"surprise":1'),
    "a key left out": GOOD.replace(b'"sequence":0,', b""),
    "a float": GOOD.replace(b'"sequence":0', b'"sequence":0.0'),
    "an exponent": GOOD.replace(b'"sequence":0', b'"sequence":0e0'),
    "minus zero": GOOD.replace(b'"sequence":0', b'"sequence":-0'),
    "negative": GOOD.replace(b'"sequence":0', b'"sequence":-1'),
    "2^53": GOOD.replace(b'"sequence":0', b'"sequence":9007199254740992'),
    "2^64": GOOD.replace(b'"sequence":0', b'"sequence":18446744073709551616'),
    "4,000 digits": GOOD.replace(b'"sequence":0', b'"sequence":' + b"9" * 4000),
    "a boolean": GOOD.replace(b'"sequence":0', b'"sequence":false'),
    "an amount as number": GOOD.replace(b'"amount":"5"', b'"amount":5'),
    "an amount with a zero before": GOOD.replace(b'"amount":"5"', b'"amount":"05"'),
    "an amount with a sign": GOOD.replace(b'"amount":"5"', b'"amount":"+5"'),
    "an amount and a new line": GOOD.replace(b'"amount":"5"', b'"amount":"5\\n"'),
    "digits of another script": GOOD.replace(b'"amount":"5"', '"amount":"٥"'.encode()),
    "an escape for a letter": GOOD.replace(b'"ucredit"', b'"\\u0075credit"'),
    "a lone surrogate": GOOD.replace(b'"ucredit"', b'"\\ud800"'),
    "bytes that are no text": GOOD.replace(b'"ucredit"', b'"\xff\xfe"'),
    "a null byte": GOOD.replace(b'"ucredit"', b'"u\x00redit"'),
    "an unknown message": GOOD.replace(b'"Transfer"', b'"Teleport"'),
    "no messages": respelled(lambda v: v["transaction"].update(messages=[])),  # type: ignore[attr-defined]
    "too many messages": signed(MAX_MESSAGES + 1),
    "capital hex": GOOD.replace(ADA.key.encode(), ADA.key.upper().encode()),
    "a nest of arrays": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "a nest of objects": b'{"a":' * 40_000 + b"1" + b"}" * 40_000,
    "an open nest": b'{"a":' + b"[" * 200_000,
    "brackets as text": b'{"a":"' + b"[" * 250_000 + b'"}',
    "brackets at the end": b'{"a":"' + b"x" * 250_000 + b'",' + b"[" * 33,
    "pairs of brackets": b'{"a":[' + b"[]," * 80_000 + b"1]}",
    "escapes": b'{"a":"' + b"\\[" * 120_000 + b'"}',
    "messages that are none": GOOD.replace(b'"messages":[', b'"messages":[' + b"{}," * 80_000),
    "a message of nests": GOOD.replace(b'"messages":[', b'"messages":[{"a":' + b"[" * 100_000),
    "a nest before its type": GOOD.replace(b'"amount":"5"', b'"amount":' + b"[" * 60_000 + b"]" * 60_000),
    "an amount of many digits": GOOD.replace(b'"amount":"5"', b'"amount":"' + b"9" * 250_000 + b'"'),
    "a float of many digits": GOOD.replace(b'"sequence":0', b'"sequence":0.' + b"9" * 250_000),
    "250,000 spaces": GOOD[:-1] + b" " * 250_000 + b"}",
    "a megabyte": b'{"a":"' + b"x" * 2**20 + b'"}',
    "a megabyte of nothing": b"{" + b" " * 2**20 + b"}",
}


@pytest.mark.parametrize("what", sorted(HOSTILE))
def test_hostile_bytes_are_refused(what: str) -> None:
    """With MALFORMED or TOO_LARGE, quickly, and with no other error."""
    assert HOSTILE[what] != GOOD
    signed_content(HOSTILE[what])
    assert refused(CODEC.decode, HOSTILE[what]) in (Code.MALFORMED, Code.TOO_LARGE)


def best_s(work: Callable[[], object]) -> float:
    """The shortest of several runs, in seconds: what else runs on the machine does not count."""
    return min(timeit.repeat(work, number=1, repeat=7))


def test_hostile_bytes_are_refused_quickly() -> None:
    """None takes longer than three times what hashing a megabyte takes (about 0.5 ms): no refusal costs a millisecond."""
    megabyte = bytes(2**20)
    limit = 3 * best_s(lambda: hashlib.sha256(megabyte).digest())
    for what, raw in HOSTILE.items():
        assert best_s(lambda raw=raw: refused(CODEC.decode, raw)) < limit, what  # type: ignore[misc]


def test_limits_are_exact() -> None:
    """64 messages are taken; a byte more than the limit is too large before anything is read."""
    assert taken(signed(MAX_MESSAGES))
    assert refused(CODEC.decode, b"{" * (MAX_BYTES + 1)) == Code.TOO_LARGE
    assert refused(CODEC.decode, b"{" * MAX_BYTES) == Code.MALFORMED


@given(st.binary(max_size=200), st.integers(0, len(GOOD)), st.integers(0, 40))
def test_spliced_bytes_are_refused(noise: bytes, at: int, length: int) -> None:
    """Noise put in place of any part never gives another good transaction, and never another error."""
    raw = GOOD[:at] + noise + GOOD[at + length :]
    assert taken(raw) == (raw == GOOD)


def test_random_bytes_are_refused() -> None:
    """Nor does pure noise."""
    rng = random.Random(2)
    for _ in range(2000):
        assert not taken(b"{" + rng.randbytes(rng.randrange(80)))
