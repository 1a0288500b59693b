"""Ed25519 keys and addresses.

Consensus verifies with one pinned library, libsodium through PyNaCl, and refuses beyond it the encodings that
libraries disagree on: small-order points and non-canonical y, for keys and for R. `cryptography` cross-checks in
the tests. An address is the hash of the account's first key and survives rotation.
"""

from functools import lru_cache
from typing import Annotated, Final

import msgspec
from nacl._sodium import ffi, lib  # type: ignore[import-not-found]
from nacl.bindings import crypto_sign, crypto_sign_seed_keypair

from ledger.protocol import bech32m
from ledger.protocol.encoding import digest
from ledger.protocol.errors import Code, Rejected

PREFIX: Final = "gpu"

ADDRESS: Final = r"^gpu1[02-9ac-hj-np-z]{38}\Z"
Address = Annotated[str, msgspec.Meta(min_length=42, max_length=42, pattern=ADDRESS)]
KeyHex = Annotated[str, msgspec.Meta(min_length=64, max_length=64, pattern=r"^[0-9a-f]{64}\Z")]
HashHex = Annotated[str, msgspec.Meta(min_length=64, max_length=64, pattern=r"^[0-9a-f]{64}\Z")]
SignatureHex = Annotated[str, msgspec.Meta(min_length=128, max_length=128, pattern=r"^[0-9a-f]{128}\Z")]

_P: Final = 2**255 - 19
# y coordinates of the eight points of small order; the sign bit does not matter.
_SMALL_ORDER_Y: Final = frozenset(
    {
        0,
        1,
        _P - 1,
        2707385501144840649318225287225658788936804267575313519463743609750303021902,
        _P - 2707385501144840649318225287225658788936804267575313519463743609750303021902,
    }
)


def is_refused_point(encoded: bytes) -> bool:
    """True for a point of small order and for a y that is not below the field's prime."""
    y = int.from_bytes(encoded, "little") & (1 << 255) - 1
    return y >= _P or y in _SMALL_ORDER_Y


_is_refused_key: Final = lru_cache(maxsize=1 << 14)(is_refused_point)


def check_key(key: bytes) -> None:
    """KEY_REFUSED unless `key` is 32 bytes of a canonical point that is not of small order."""
    if len(key) != 32 or is_refused_point(key):
        raise Rejected(Code.KEY_REFUSED, "the public key is not canonical or of small order")


def address_of(key: bytes) -> str:
    """Return the address of the account whose first public key is `key` (32 bytes)."""
    return bech32m.encode(PREFIX, digest("address/v1", key)[:20])


def check_address(text: str) -> None:
    """ADDRESS_REFUSED unless `text` is a well-formed address with a matching checksum."""
    try:
        prefix, payload = bech32m.decode(text)
    except ValueError as error:
        raise Rejected(Code.ADDRESS_REFUSED, f"{text!r}: {error}") from None
    if prefix != PREFIX or len(payload) != 20 or text != text.lower():
        raise Rejected(Code.ADDRESS_REFUSED, f"{text!r} is not an address of this kind of ledger")


def verify(key: bytes, message: bytes, signature: bytes) -> bool:
    """True where `signature` (64 bytes) by `key` (32 bytes) over `message` is good under our rule."""
    return len(signature) == 64 and opens(key, signature + message)


def opens(key: bytes, signed: bytes) -> bool:
    """`verify` for a signature with its message behind it."""
    if len(key) != 32 or len(signed) < 64:
        return False
    # PyNaCl's own function of this name copies the message out, which nobody needs.
    if lib.crypto_sign_open(ffi.NULL, ffi.NULL, signed, len(signed), key) != 0:
        return False
    # Most signatures are good and few keys sign them: what the library does not refuse is looked at last.
    return not (_is_refused_key(key) or is_refused_point(signed[:32]))


def public_key(seed: bytes) -> bytes:
    """Return the public key (32 bytes) of a secret seed (32 bytes)."""
    return crypto_sign_seed_keypair(seed)[0]


def sign(seed: bytes, message: bytes) -> bytes:
    """Return the signature (64 bytes) over `message` by the key of `seed` (32 bytes); deterministic."""
    public, secret = crypto_sign_seed_keypair(seed)
    del public
    return crypto_sign(message, secret)[:64]
