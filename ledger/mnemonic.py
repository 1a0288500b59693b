"""A key as 24 words (BIP-39) that can be written on paper, derived by SLIP-10 for Ed25519."""

import hashlib
import hmac
from typing import Any, Final

from ledger.keystore import KeystoreError

PATH: Final = (44, 7077, 0)
"""m/44'/7077'/0': all hardened, as Ed25519 needs."""


def _words() -> Any:
    try:
        from mnemonic import Mnemonic
    except ImportError:
        raise KeystoreError("mnemonics need the extra `wallet`", fix="pip install 'gpubid[wallet]'") from None
    return Mnemonic("english")


def generate() -> str:
    """24 new words."""
    return str(_words().generate(strength=256))


def seed_of(words: str, passphrase: str = "") -> bytes:
    """The Ed25519 seed (32 bytes) of the words; KeystoreError where a word or the checksum is wrong."""
    words = " ".join(words.split())
    mnemonic = _words()
    if not mnemonic.check(words):
        raise KeystoreError("the words are not a valid mnemonic", fix="check their order and spelling", exit_code=2)
    return slip10(bytes(mnemonic.to_seed(words, passphrase)), PATH)


def slip10(seed: bytes, path: tuple[int, ...]) -> bytes:
    """The private key (32 bytes) at a hardened path below a BIP-39 seed, by SLIP-10 for Ed25519."""
    node = hmac.digest(b"ed25519 seed", seed, hashlib.sha512)
    for index in path:
        node = hmac.digest(node[32:], b"\0" + node[:32] + (index | 0x80000000).to_bytes(4, "big"), hashlib.sha512)
    return node[:32]
