"""Each code of the ledger is provoked by a row: who sends what, and which code comes back."""

from collections.abc import Callable
from typing import Any

import pytest

from ledger.machine import escrow
from ledger.machine.accounts import ACCOUNTS
from ledger.machine.crowding import Crowding
from ledger.machine.tree import Tree
from ledger.protocol import keys
from ledger.protocol.errors import HTTP_STATUS, Code, is_final
from ledger.protocol.messages import (
    Burn,
    Delegate,
    Deposit,
    Mint,
    Revoke,
    RotateKey,
    SetParameter,
    Settle,
    Transfer,
    Upgrade,
    Withdraw,
)
from ledger.protocol.money import MAX_AMOUNT
from ledger.protocol.transaction import rotation_bytes
from tests.ledger.machine.chain import ADA, BOB, CAT, CHAIN, CREDIT, GOVERNOR, ISSUER, START, Chain, User, refused
from tests.ledger.machine.test_upgrade import Gated, Wave

KEY = User("delegate")
NOBODY = User("nobody")


def transfer(amount: int = 1, to: str = BOB.address, denomination: str = CREDIT) -> Transfer:
    """A transfer of `amount` micro-units to Bob."""
    return Transfer(amount=str(amount), denomination=denomination, to=to)


def delegate(**changes: Any) -> Delegate:
    """A delegation of transfers up to 100 a day for an hour."""
    fields: dict[str, Any] = {
        "expires_ms": START + 3_600_000,
        "key": KEY.key,
        "spend_per_day": "100",
        "verbs": ("Transfer",),
    }
    return Delegate(**(fields | changes))


def delegated(chain: Chain, *messages: Any) -> int:
    """The code that Ada's delegated key gets."""
    chain.ok(ADA, delegate())
    return chain.send(KEY, *messages, principal=ADA.address).code


def repeated(chain: Chain) -> int:
    """The code of a transaction sent again."""
    signed = chain.sign(ADA, transfer())
    chain.block(signed)
    return chain.block(signed).receipts[0].code


def forged(chain: Chain) -> int:
    """The code of a transaction with another one's signature."""
    one, two = chain.raw(ADA, transfer(1)), chain.raw(ADA, transfer(2))
    raw = two.replace(two[14:142], one[14:142])
    return chain.block(chain.machine.codec.decode(raw)).receipts[0].code


def limited(chain: Chain) -> int:
    """The code of one transaction more than the bucket holds."""
    chain.ok(GOVERNOR, SetParameter(name="bucket_burst", value=2))
    chain.ok(GOVERNOR, SetParameter(name="bucket_refill_per_s", value=1))
    return chain.block(*(chain.sign(ADA, transfer()) for _ in range(3))).receipts[-1].code


def with_purse(*after: Callable[[Any], Any]) -> Chain:
    """A chain on which Ada has the purse `p` with 1,000 micro-units."""
    chain = Chain()
    chain.act(lambda ctx: escrow.open_purse(ctx, "p", ADA.address, CREDIT, 1000), *after)
    return chain


def full(chain: Chain) -> int:
    """The code of a deposit by a third depositor where two are allowed."""
    chain.ok(GOVERNOR, SetParameter(name="purse_max_deposits", value=2))
    chain.ok(BOB, Deposit(amount="1", purse="p"))
    return chain.send(CAT, Deposit(amount="1", purse="p")).code


def locked() -> int:
    """The code of a withdrawal from a purse that ran dry."""
    chain = with_purse(
        lambda ctx: escrow.add_meter(ctx, "m", "p", BOB.address, 3_600_000),
        lambda ctx: escrow.start_meter(ctx, "m"),
    )
    return chain.send(ADA, Withdraw(amount="1", purse="p"), at=chain.now + 5000).code


def crowded() -> int:
    """The code of a record that its bucket has no room for."""
    return refused(Crowding(Tree()).admit, [(ACCOUNTS, ADA.address)], 0)


def conflict() -> int:
    """The code of opening a purse whose id is taken."""
    chain = with_purse()
    out: list[int] = []
    chain.act(lambda ctx: out.append(refused(escrow.open_purse, ctx, "p", ADA.address, CREDIT, 1)))
    return out[0]


ROWS: list[tuple[Code, str, Callable[[], int]]] = [
    (Code.OK, "a transfer", lambda: Chain().send(ADA, transfer()).code),
    (Code.MALFORMED, "no JSON", lambda: refused(Chain().machine.codec.decode, b"{]")),
    (Code.MALFORMED, "a nonce and a sequence", lambda: Chain().send(ADA, transfer(), sequence=1).code),
    (Code.MALFORMED, "neither nonce nor sequence", lambda: Chain().send(ADA, transfer(), nonce="").code),
    (Code.WRONG_CHAIN, "another chain's", lambda: Chain().send(ADA, transfer(), chain_id="test-2").code),
    (Code.EXPIRED, "over", lambda: Chain().send(ADA, transfer(), valid_until=START).code),
    (Code.EXPIRED, "a delegation that is over", lambda: Chain().send(ADA, delegate(expires_ms=START)).code),
    (Code.VALID_TOO_LONG, "121 s", lambda: Chain().send(ADA, transfer(), valid_until=START + 120_002).code),
    (Code.BAD_SIGNATURE, "another one's signature", lambda: forged(Chain())),
    (Code.KEY_REFUSED, "a first key of another account", lambda: Chain().send(BOB, transfer(), principal=ADA.address).code),
    (Code.KEY_REFUSED, "delegating to a small-order key", lambda: Chain().send(ADA, delegate(key="00" * 32)).code),
    (
        Code.KEY_REFUSED,
        "rotation without the new key's word",
        lambda: Chain().send(ADA, RotateKey(key=BOB.key, proof="00" * 64)).code,
    ),
    (Code.ACCOUNT_NOT_FOUND, "no money yet", lambda: Chain().send(NOBODY, transfer()).code),
    (Code.NOT_AUTHORISED, "a verb that was not given", lambda: delegated(Chain(), Burn(amount="1", denomination=CREDIT))),
    (Code.NOT_AUTHORISED, "a delegate that delegates", lambda: delegated(Chain(), delegate(verbs=("*",), version=1))),
    (Code.NOT_AUTHORISED, "another's meters", lambda: with_purse().send(CAT, Settle(purse="p")).code),
    (Code.NOT_AUTHORISED, "another's deposits", lambda: with_purse().send(CAT, Withdraw(amount="1", purse="p")).code),
    (Code.ALREADY_APPLIED, "a repeat", lambda: repeated(Chain())),
    (
        Code.BAD_SEQUENCE,
        "a sequence left out",
        lambda: Chain().send(ADA, transfer(), nonce="", valid_until=0, sequence=2).code,
    ),
    (Code.RATE_LIMITED, "three at once", lambda: limited(Chain())),
    (Code.TOO_LARGE, "a megabyte", lambda: refused(Chain().machine.codec.decode, b"{" + b" " * 2**20)),
    (Code.ID_CONFLICT, "a purse id twice", conflict),
    (Code.BUCKET_FULL, "a full bucket", crowded),
    (Code.UNKNOWN_MESSAGE, "a message of newer rules", lambda: Chain((Gated(),), protocol=1).send(ADA, Wave()).code),
    (Code.INSUFFICIENT_FUNDS, "more than there is", lambda: Chain().send(ADA, transfer(10**12 + 1)).code),
    (
        Code.INSUFFICIENT_FUNDS,
        "more than is in the purse",
        lambda: with_purse().send(ADA, Withdraw(amount="1001", purse="p")).code,
    ),
    (Code.AMOUNT_REFUSED, "nothing", lambda: Chain().send(ADA, transfer(0)).code),
    (Code.AMOUNT_REFUSED, "over 63 bits", lambda: Chain().send(ADA, transfer(2**63)).code),
    (
        Code.AMOUNT_REFUSED,
        "minting more than an amount holds",
        lambda: Chain().send(ISSUER, Mint(amount=str(MAX_AMOUNT), denomination=CREDIT, to=ADA.address)).code,
    ),
    (Code.DENOMINATION_NOT_FOUND, "unknown money", lambda: Chain().send(ADA, transfer(denomination="ugold")).code),
    (Code.SPEND_LIMIT, "a delegate over its day", lambda: delegated(Chain(), transfer(60), transfer(41))),
    (Code.DELEGATION_NOT_FOUND, "no such delegation", lambda: Chain().send(ADA, Revoke(key=KEY.key)).code),
    (
        Code.NOT_ISSUER,
        "minting by another",
        lambda: Chain().send(ADA, Mint(amount="1", denomination=CREDIT, to=ADA.address)).code,
    ),
    (Code.NOT_ISSUER, "burning by another", lambda: Chain().send(ADA, Burn(amount="1", denomination=CREDIT)).code),
    (
        Code.NOT_GOVERNANCE,
        "a parameter by another",
        lambda: Chain().send(ADA, SetParameter(name="take_rate_ppm", value=1)).code,
    ),
    (Code.NOT_GOVERNANCE, "an upgrade by another", lambda: Chain().send(ADA, Upgrade(height=9, protocol=2)).code),
    (
        Code.PARAMETER_REFUSED,
        "out of bounds",
        lambda: Chain().send(GOVERNOR, SetParameter(name="take_rate_ppm", value=500_001)).code,
    ),
    (Code.PARAMETER_REFUSED, "unknown", lambda: Chain().send(GOVERNOR, SetParameter(name="colour", value=1)).code),
    (Code.VERSION_MISMATCH, "a version that is not there", lambda: Chain().send(ADA, delegate(version=1)).code),
    (
        Code.ADDRESS_REFUSED,
        "a letter changed",
        lambda: Chain().send(ADA, transfer(to=BOB.address[:-1] + ("q" if BOB.address[-1] != "q" else "p"))).code,
    ),
    (Code.UPGRADE_REFUSED, "a height that has begun", lambda: Chain().send(GOVERNOR, Upgrade(height=1, protocol=2)).code),
    (Code.UPGRADE_REFUSED, "the same rules", lambda: Chain().send(GOVERNOR, Upgrade(height=9, protocol=1)).code),
    (Code.PURSE_NOT_FOUND, "no such purse", lambda: Chain().send(ADA, Deposit(amount="1", purse="q")).code),
    (
        Code.PURSE_CLOSED,
        "a closed purse",
        lambda: with_purse(lambda ctx: escrow.close_purse(ctx, "p")).send(ADA, Deposit(amount="1", purse="p")).code,
    ),
    (Code.PURSE_LOCKED, "a dry purse", locked),
    (Code.DEPOSITORS_FULL, "a third depositor", lambda: full(with_purse())),
]


@pytest.mark.parametrize(("code", "what", "provoke"), ROWS, ids=[f"{c.name}-{w.replace(' ', '_')}" for c, w, _ in ROWS])
def test_code(code: Code, what: str, provoke: Callable[[], int]) -> None:
    """The row's action is refused with the row's code, and with no other."""
    assert provoke() == code, what


def test_every_code_has_a_row() -> None:
    """No code is left that nothing provokes."""
    assert {code for code, _, _ in ROWS} == set(Code)


def test_codes_keep_their_numbers() -> None:
    """Numbers are consensus: this list only grows."""
    numbers = {
        "OK": 0, "MALFORMED": 100, "WRONG_CHAIN": 101, "EXPIRED": 102, "VALID_TOO_LONG": 103, "BAD_SIGNATURE": 104,
        "KEY_REFUSED": 105, "ACCOUNT_NOT_FOUND": 106, "NOT_AUTHORISED": 107, "ALREADY_APPLIED": 108, "BAD_SEQUENCE": 109,
        "RATE_LIMITED": 110, "TOO_LARGE": 111, "ID_CONFLICT": 112, "BUCKET_FULL": 113, "UNKNOWN_MESSAGE": 114,
        "INSUFFICIENT_FUNDS": 200, "AMOUNT_REFUSED": 201,
        "DENOMINATION_NOT_FOUND": 202, "SPEND_LIMIT": 203, "DELEGATION_NOT_FOUND": 204, "NOT_ISSUER": 205,
        "NOT_GOVERNANCE": 206, "PARAMETER_REFUSED": 207, "VERSION_MISMATCH": 208, "ADDRESS_REFUSED": 209,
        "UPGRADE_REFUSED": 210, "PURSE_NOT_FOUND": 300, "PURSE_CLOSED": 301, "PURSE_LOCKED": 302, "DEPOSITORS_FULL": 303,
    }  # fmt: skip
    assert {code.name: int(code) for code in Code} == numbers
    assert set(HTTP_STATUS) <= set(Code)


def test_what_says_nothing_about_an_id_is_not_final() -> None:
    """A bad copy of a transaction does not become the lasting result of its id."""
    assert not any(map(is_final, (Code.BAD_SIGNATURE, Code.ALREADY_APPLIED, Code.EXPIRED, Code.BAD_SEQUENCE)))
    assert all(map(is_final, (0, Code.INSUFFICIENT_FUNDS, Code.RATE_LIMITED, 455)))


def test_rotation_is_for_one_chain() -> None:
    """A new key's word for one chain is worth nothing on another."""
    chain = Chain()
    other = keys.sign(BOB.seed, rotation_bytes("test-2", ADA.address)).hex()
    good = keys.sign(BOB.seed, rotation_bytes(CHAIN, ADA.address)).hex()
    assert chain.send(ADA, RotateKey(key=BOB.key, proof=other)).code == Code.KEY_REFUSED
    assert chain.send(ADA, RotateKey(key=BOB.key, proof=good)).code == Code.OK
