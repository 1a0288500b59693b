"""Signed transactions: canonical JSON, signed over a domain-tagged hash; the id excludes the signature."""

import re
from binascii import unhexlify
from collections.abc import Sequence
from functools import lru_cache, reduce
from hashlib import sha256
from operator import or_
from typing import Annotated, Any, Final

import msgspec

from ledger.protocol import keys
from ledger.protocol.encoding import digest, domain, encode
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.keys import Address, KeyHex, SignatureHex
from ledger.protocol.messages import Message, TimeMs

MAX_BYTES: Final = 256 * 1024
"""Largest signed transaction, in bytes."""

MAX_MESSAGES: Final = 64

CHAIN_ID: Final = r"^[a-z0-9][a-z0-9-]{1,46}\Z"
ChainId = Annotated[str, msgspec.Meta(pattern=CHAIN_ID)]
Nonce = Annotated[str, msgspec.Meta(pattern=r"^([0-9a-f]{32})?\Z")]


class Transaction(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """What is signed.

    `nonce` is 128 random bits in hex, made and stored by the client before sending, with `valid_until` in ms of
    block time. A key signed offline uses `sequence` instead (the account's next, counted from 1) with an empty
    nonce and no expiry (0).
    """

    chain_id: ChainId
    messages: tuple[Message, ...]
    nonce: Nonce
    principal: Address
    sequence: Annotated[int, msgspec.Meta(ge=0, le=2**53 - 1)]
    signer: KeyHex
    valid_until: TimeMs


class SignedTransaction(msgspec.Struct, frozen=True, gc=False, forbid_unknown_fields=True):
    """A transaction with its one signature."""

    signature: SignatureHex
    transaction: Transaction


class Signed(msgspec.Struct, frozen=True, gc=False):
    """A transaction as received, decoded and found canonical; its signature is not checked yet."""

    raw: bytes
    id: str
    """Hex of the hash of the signed content: 64 characters."""
    signed_bytes: bytes
    signature: bytes
    key: bytes
    """The signer's public key."""
    transaction: Any
    """A `Transaction` whose messages are of the codec's types."""

    def signature_is_good(self) -> bool:
        """Verify the one signature (about 70 µs)."""
        return keys.verify(self.key, self.signed_bytes, self.signature)


_DOMAIN: Final = domain("transaction/v1")


def signing_bytes(canonical: bytes) -> bytes:
    """Return what the key signs for the canonical bytes of a `Transaction`: 32 bytes; its hex is the id."""
    # `digest("transaction/v1", canonical)` in one call: this is done for every transaction.
    return sha256(b"".join((_DOMAIN, len(canonical).to_bytes(8, "big"), canonical))).digest()


def rotation_bytes(chain_id: str, address: str) -> bytes:
    """Return what a new key signs to take over an account (RotateKey.proof): 32 bytes."""
    return digest("rotate/v1", chain_id.encode("ascii"), address.encode("ascii"))


class Codec:
    """Decodes signed transactions whose messages are of the given types, strictly."""

    def __init__(self, message_types: Sequence[type[Message]]) -> None:
        names = [t.__struct_config__.tag for t in message_types]
        assert len(set(names)) == len(names), "two messages share a name"
        self.message_types = tuple(message_types)
        union: Any = reduce(or_, message_types)
        transaction = msgspec.defstruct(
            "TransactionOfChain",
            [
                ("messages", Annotated[tuple[union, ...], msgspec.Meta(min_length=1, max_length=MAX_MESSAGES)]),
                # Patterns cost six times what the rest of decoding does: `_from_hex` and `_check_names` look at these.
                ("chain_id", str),
                ("nonce", str),
                ("principal", str),
                ("signer", str),
            ],
            bases=(Transaction,),
            frozen=True,
            forbid_unknown_fields=True,
        )
        signed = msgspec.defstruct(
            "SignedTransactionOfChain",
            [("transaction", transaction), ("signature", str)],
            bases=(SignedTransaction,),
            frozen=True,
            forbid_unknown_fields=True,
        )
        self._decoder: msgspec.json.Decoder[Any] = msgspec.json.Decoder(signed)

    def decode(self, raw: bytes, content: bytes = b"") -> Signed:
        """Return the transaction in `raw`; MALFORMED or TOO_LARGE says what is wrong, and where.

        `content` is what `signed_content` found in it, for one that need not hash it again.
        """
        if len(raw) > MAX_BYTES:
            raise Rejected(Code.TOO_LARGE, f"{len(raw)} bytes, at most {MAX_BYTES}")
        # How deep it may nest is in the types: what they do not foresee is refused where it begins.
        try:
            envelope = self._decoder.decode(raw)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise Rejected(Code.MALFORMED, str(error)) from None
        try:
            same = encode(envelope) == raw
        except UnicodeEncodeError as error:
            raise Rejected(Code.MALFORMED, f"not valid text: {error.reason}") from None
        if not same:
            raise Rejected(Code.MALFORMED, "not in canonical form: sorted keys, no spaces, each key once")
        transaction = envelope.transaction
        signature, key = _from_hex(envelope.signature, transaction.signer, transaction.nonce)
        _check_names(transaction.chain_id, transaction.principal)
        # The canonical envelope is `{"signature":"…","transaction":…}`: what is signed stands in it as it is.
        content = content or signing_bytes(raw[_CONTENT_AT:-1])
        return Signed(raw, content.hex(), content, signature, key, transaction)


_SIGNATURE_AT: Final = len(b'{"signature":"')
_SIGNATURE_END: Final = _SIGNATURE_AT + 128
_BETWEEN: Final = b'","transaction":'
_CONTENT_AT: Final = _SIGNATURE_END + len(_BETWEEN)
_SIGNER: Final = b'"signer":"'
_AFTER_SIGNER: Final = b'","valid_until":'
_CHAIN_ID: Final = re.compile(CHAIN_ID)
_ADDRESS: Final = re.compile(keys.ADDRESS)


@lru_cache(maxsize=1 << 14)
def _check_names(chain_id: str, principal: str) -> None:
    """MALFORMED where one is not of its form; the same few chains and accounts come again and again."""
    for pattern, text in ((_CHAIN_ID, chain_id), (_ADDRESS, principal)):
        if pattern.match(text) is None:
            raise Rejected(Code.MALFORMED, f"not of the form {pattern.pattern}: {text[:100]!r}")


def signed_content(raw: bytes) -> bytes:
    """Return the 32 bytes that are signed in `raw`, if it is canonical and its signature is good; else nothing.

    It does not decode: whether `raw` is canonical, `decode` finds out. In what is, the last `"signer":"` is the
    transaction's own: inside a text its quotes are escaped, and after it comes a number only.
    """
    signer_at = raw.rfind(_SIGNER) + len(_SIGNER)
    if not (raw.startswith(_BETWEEN, _SIGNATURE_END) and raw.startswith(_AFTER_SIGNER, signer_at + 64)):
        return b""
    try:
        signature, key = unhexlify(raw[_SIGNATURE_AT:_SIGNATURE_END]), unhexlify(raw[signer_at : signer_at + 64])
    except ValueError:
        return b""
    content = signing_bytes(raw[_CONTENT_AT:-1])
    return content if keys.opens(key, signature + content) else b""


def _from_hex(signature: str, signer: str, nonce: str) -> tuple[bytes, bytes]:
    """What signature and signer spell in lower-case hex; MALFORMED where one of the three is of another form."""
    try:
        signed, key, random = bytes.fromhex(signature), bytes.fromhex(signer), bytes.fromhex(nonce)
    except ValueError:
        raise Rejected(Code.MALFORMED, "signature, signer or nonce are not hex") from None
    if len(signed) != 64 or len(key) != 32 or (nonce and len(random) != 16):
        raise Rejected(Code.MALFORMED, "signature, signer and nonce take 64, 32 and 16 (or no) bytes")
    # `fromhex` also takes capitals and spaces.
    if signed.hex() != signature or key.hex() != signer or random.hex() != nonce:
        raise Rejected(Code.MALFORMED, "hex is in lower case, without spaces")
    return signed, key


def sign_transaction(transaction: Transaction, seed: bytes) -> bytes:
    """Return the canonical bytes of the signed transaction; `seed` is the signer's, 32 bytes."""
    content = signing_bytes(encode(transaction))
    assert keys.public_key(seed).hex() == transaction.signer, "the seed is not the signer's"
    return encode(SignedTransaction(signature=keys.sign(seed, content).hex(), transaction=transaction))
