"""Who may act: the window of validity, the key or delegation, the sequence, the rate bucket."""

from typing import Any

from ledger.machine.accounts import ACCOUNTS, Account
from ledger.machine.context import Context
from ledger.machine.delegation import DELEGATIONS, allows
from ledger.machine.store import Store
from ledger.protocol import keys
from ledger.protocol.errors import Code, Rejected, require
from ledger.protocol.transaction import Transaction


def check_window(transaction: Transaction, chain_id: str, now_ms: int, max_validity_ms: int | None) -> None:
    """Refuse what is for another chain, over, or valid for too long (None: however long).

    MALFORMED where it is neither a transaction with nonce and expiry nor one with a sequence, WRONG_CHAIN, EXPIRED,
    VALID_TOO_LONG.
    """
    until = transaction.valid_until
    if (
        transaction.chain_id == chain_id
        and transaction.nonce
        and not transaction.sequence
        and max_validity_ms is not None
        and now_ms <= until <= now_ms + max_validity_ms
    ):
        return  # the usual case
    if transaction.chain_id != chain_id:
        raise Rejected(Code.WRONG_CHAIN, f"this chain is {chain_id}")
    if not transaction.nonce:
        require(until == 0 and transaction.sequence > 0, Code.MALFORMED, "without a nonce it needs a sequence and no expiry")
        return
    require(transaction.sequence == 0, Code.MALFORMED, "a nonce and a sequence exclude each other")
    if until < now_ms:
        raise Rejected(Code.EXPIRED, f"valid until {until}, it is {now_ms}")
    if max_validity_ms is not None and until > now_ms + max_validity_ms:
        raise Rejected(Code.VALID_TOO_LONG, f"at most {max_validity_ms} ms ahead of {now_ms}")


def check_key(store: Store, transaction: Transaction, now_ms: int) -> tuple[Account, bool]:
    """Return the account and whether the signer acts by delegation.

    ACCOUNT_NOT_FOUND; KEY_REFUSED where a first key does not hash to the address; NOT_AUTHORISED where the signer is
    not the account's key and no delegation in force covers every message.
    """
    principal, signer = transaction.principal, transaction.signer
    account = store.get(ACCOUNTS, principal)
    if account is None:
        raise Rejected(Code.ACCOUNT_NOT_FOUND, f"{principal} has never received money")
    if account.key == signer:
        return account, False
    if not account.key:
        good = keys.address_of(bytes.fromhex(signer)) == principal
        require(good, Code.KEY_REFUSED, "the first key of an account must hash to its address")
        return account, False
    kinds: list[Any] = [type(message) for message in transaction.messages]
    delegated = allows(store.get(DELEGATIONS, f"{principal}/{signer}"), kinds, now_ms)
    require(delegated, Code.NOT_AUTHORISED, "the signer is not the account's key and has no delegation for this")
    return account, True


def bucket_at(account: Account, now_ms: int, burst: int, refill_per_s: int) -> int:
    """Thousandths of a transaction in the account's rate bucket at `now_ms`, under protocol 1."""
    if account.bucket_ms == 0:
        return burst * 1000
    return min(burst * 1000, account.bucket_milli + refill_per_s * max(0, now_ms - account.bucket_ms))


def check_rate(account: Account, now_ms: int, burst: int, refill_per_s: int) -> int:
    """Return what the bucket holds after one transaction, in thousandths, under protocol 1; RATE_LIMITED where it has none."""
    rest = bucket_at(account, now_ms, burst, refill_per_s) - 1000
    if rest < 0:
        raise Rejected(Code.RATE_LIMITED, f"at most {refill_per_s} transactions a second, {burst} at once")
    return rest


def check_sequence(account: Account, transaction: Transaction) -> int:
    """Return the account's sequence after the transaction; BAD_SEQUENCE where an offline one is not the next."""
    if transaction.nonce:
        return account.sequence
    if transaction.sequence != account.sequence + 1:
        raise Rejected(Code.BAD_SEQUENCE, f"the next sequence is {account.sequence + 1}")
    return transaction.sequence


def admit(ctx: Context, transaction: Transaction) -> bool:
    """Take one transaction out of the account's bucket, count its sequence, register a first key.

    What is written here stays even where a message is refused: a refusal costs as much as a success. Returns whether
    the signer acts by delegation; refused as the checks above say.
    """
    now = ctx.time
    account = ctx.store.get(ACCOUNTS, transaction.principal)
    delegated = False
    if account is None or account.key != transaction.signer:
        account, delegated = check_key(ctx.store, transaction, now)
    sequence = account.sequence if transaction.nonce else check_sequence(account, transaction)
    if ctx.protocol >= 2:
        rest = ctx.buckets.take(account, transaction, now)
    else:
        rest = check_rate(account, now, ctx.parameter("bucket_burst"), ctx.parameter("bucket_refill_per_s"))
    key = account.key or transaction.signer
    ctx.store.put(ACCOUNTS, Account(account.address, rest, now, key, account.money, sequence, account.version))
    return delegated
