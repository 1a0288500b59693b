"""Keys, signatures and addresses against what others say is right."""

import json
import random
from pathlib import Path

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ledger.machine.accounts import NETWORK_ACCOUNT
from ledger.protocol import bech32m, keys
from ledger.protocol.errors import Code, Rejected

ROOT = Path(__file__).resolve().parents[3]
WYCHEPROOF = ROOT.parent / "shared" / "vectors" / "ed25519" / "wycheproof_ed25519.json"

# RFC 8032, 7.1: secret key, public key, message, signature.
RFC8032 = [
    (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
]

L = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19


@pytest.mark.parametrize(("seed", "public", "message", "signature"), RFC8032)
def test_rfc_8032(seed: str, public: str, message: str, signature: str) -> None:
    """Keys and signatures are those of the standard."""
    assert keys.public_key(bytes.fromhex(seed)).hex() == public
    assert keys.sign(bytes.fromhex(seed), bytes.fromhex(message)).hex() == signature
    assert keys.verify(bytes.fromhex(public), bytes.fromhex(message), bytes.fromhex(signature))


def other_library(key: bytes, message: bytes, signature: bytes) -> bool:
    """What `cryptography` says."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, message)
    except (InvalidSignature, ValueError):
        return False
    return True


def test_wycheproof() -> None:
    """Every valid vector is accepted, every invalid one refused."""
    if not WYCHEPROOF.exists():
        pytest.skip("the vectors are not beside the checkout")
    groups = json.loads(WYCHEPROOF.read_text())["testGroups"]
    seen = 0
    for group in groups:
        key = bytes.fromhex(group["publicKey"]["pk"])
        for test in group["tests"]:
            good = keys.verify(key, bytes.fromhex(test["msg"]), bytes.fromhex(test["sig"]))
            assert good == (test["result"] == "valid"), test
            seen += 1
    assert seen >= 150, "the set is short"


def test_two_libraries_agree() -> None:
    """On good signatures and on each kind of damage to them, libsodium and `cryptography` say the same."""
    rng = random.Random(11)
    for _ in range(40):
        seed, message = rng.randbytes(32), rng.randbytes(rng.randrange(80))
        key, signature = keys.public_key(seed), keys.sign(seed, message)
        assert Ed25519PrivateKey.from_private_bytes(seed).sign(message) == signature
        at = rng.randrange(64)
        damaged = signature[:at] + bytes([signature[at] ^ 1 << rng.randrange(8)]) + signature[at + 1 :]
        s = int.from_bytes(signature[32:], "little") + L
        for candidate in (signature, damaged, signature[:32] + s.to_bytes(32, "little"), signature[:-1], signature + b"\0"):
            assert keys.verify(key, message, candidate) == other_library(key, message, candidate)
            assert keys.verify(key, message, candidate) == (candidate == signature)


def test_small_order_and_non_canonical_points_are_refused() -> None:
    """As key and as R: the eight points of small order in every encoding, and every y from p on."""
    small = [0, 1, P - 1, 2707385501144840649318225287225658788936804267575313519463743609750303021902]
    small.append(P - small[3])
    signature = keys.sign(bytes(32), b"")
    for y in [*small, P, P + 1, 2**255 - 1]:
        for sign in (0, 1):
            point = (y | sign << 255).to_bytes(32, "little")
            with pytest.raises(Rejected) as refusal:
                keys.check_key(point)
            assert refusal.value.code == Code.KEY_REFUSED
            assert not keys.verify(point, b"", signature)
            assert not keys.verify(keys.public_key(bytes(32)), b"", point + signature[32:])
    with pytest.raises(Rejected):
        keys.check_key(bytes(31))
    keys.check_key(keys.public_key(bytes(32)))


def test_addresses_find_typing_errors() -> None:
    """One letter changed, two swapped, upper case, another prefix: refused; the right one is taken."""
    address = keys.address_of(keys.public_key(bytes(32)))
    keys.check_address(address)
    keys.check_address(NETWORK_ACCOUNT)
    wrong = [address[:at] + ("q" if address[at] != "q" else "p") + address[at + 1 :] for at in range(4, len(address))]
    wrong += [
        address[:at] + address[at + 1] + address[at] + address[at + 2 :] for at in range(4, 40) if address[at] != address[at + 1]
    ]
    wrong += [address.upper(), bech32m.encode("abc", bytes(20)), bech32m.encode("gpu", bytes(19)), "", "gpu1"]
    for text in wrong:
        with pytest.raises(Rejected) as refusal:
            keys.check_address(text)
        assert refusal.value.code == Code.ADDRESS_REFUSED
