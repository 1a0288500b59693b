"""Sending transactions safely: made and stored before they are sent, sent again byte for byte, applied once."""

import contextlib
import os
import secrets
import time
from collections.abc import Container, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Protocol, cast

import msgspec

from ledger.protocol import keys
from ledger.protocol.block import Receipt
from ledger.protocol.encoding import encode
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.messages import Message
from ledger.protocol.transaction import Transaction, sign_transaction, signing_bytes

VALID_MS: Final = 110_000
"""How long a transaction is valid at most: the protocol's limit is 120 s of block time."""

_STRANGER_MS: Final = 86_400_000
"""How long after its validity a transaction for another chain is kept."""

_RETRY_STATUS: Final = frozenset({429, 502, 503, 504})


class Unreachable(Exception):
    """No answer within the time: it is not known whether the transaction was applied; `raw` may be sent again."""

    exit_code = 7

    def __init__(self, message: str, raw: bytes = b"") -> None:
        super().__init__(message)
        self.raw = raw
        self.fix = "is the node running? ask it for the transaction's id, or send the same bytes again: they are applied once"


class Envelope(msgspec.Struct, frozen=True):
    """What a client reads of signed bytes without knowing the messages of their chain."""

    id: str
    chain_id: str
    signer: str
    principal: str
    valid_until: int
    """In ms of block time; 0 where it never ends (signed offline)."""
    messages: bytes
    """The canonical JSON array."""


class _Outer(msgspec.Struct):
    signature: str
    transaction: msgspec.Raw


class _Inner(msgspec.Struct):
    chain_id: str
    messages: msgspec.Raw
    principal: str
    signer: str
    valid_until: int


def envelope_of(raw: bytes) -> Envelope:
    """Read signed bytes, as far as a client needs; MALFORMED where they are none. The id is right where they are canonical."""
    try:
        outer = msgspec.json.decode(raw, type=_Outer)
        inner = msgspec.json.decode(outer.transaction, type=_Inner)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise Rejected(Code.MALFORMED, str(error)) from None
    return Envelope(
        id=signing_bytes(bytes(outer.transaction)).hex(),
        chain_id=inner.chain_id,
        signer=inner.signer,
        principal=inner.principal,
        valid_until=inner.valid_until,
        messages=bytes(inner.messages),
    )


class Transport(Protocol):
    """The way to a node."""

    def chain(self) -> tuple[str, int]:
        """(chain id, block time now in ms)."""

    def post(self, raw: bytes) -> Receipt:
        """Send and wait for the receipt. Rejected: refused for good. Anything else: not known."""


class Outbox:
    """Signed transactions whose result is not known yet, one file each, on disk before they are sent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, id: str, raw: bytes) -> None:
        """Store durably, whole or not at all."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = self.folder / f"{id}.new"
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(raw)
            out.flush()
            os.fsync(out.fileno())
        draft.rename(self.folder / f"{id}.json")
        folder = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)

    def done(self, id: str) -> None:
        """Forget: its result is known."""
        with contextlib.suppress(FileNotFoundError):
            (self.folder / f"{id}.json").unlink()

    def pending(self) -> Iterator[tuple[str, bytes]]:
        """(id, signed bytes) of what was sent without a known result."""
        if self.folder.is_dir():
            for path in sorted(self.folder.glob("*.json")):
                with contextlib.suppress(FileNotFoundError):  # another process may have learnt its result meanwhile
                    yield path.stem, path.read_bytes()


def is_ambiguous(error: Exception) -> bool:
    """True where an error leaves open whether the transaction was applied, so that the same bytes are to be sent again."""
    if isinstance(error, Rejected):
        return error.code is Code.RATE_LIMITED
    return getattr(error, "exit_code", None) == 7 or getattr(error, "status", None) in _RETRY_STATUS or isinstance(error, OSError)


def is_final(error: Exception) -> bool:
    """True where an error is the node's last word on a transaction; anything else, a bug on the way too, says nothing."""
    return isinstance(error, Rejected) or 400 <= (getattr(error, "status", None) or 0) < 500


def code_of(number: int) -> IntEnum:
    """The ledger's code of that number, or one made for a module's."""
    if number in Code._value2member_map_:
        return Code(number)
    kind: Any = IntEnum
    return cast(IntEnum, kind("ModuleCode", {f"CODE_{number}": number})(number))


class Sender:
    """Signs and sends for one account. `principal` is the account acted for, the key's own by default."""

    def __init__(self, transport: Transport, seed: bytes, *, principal: str | None = None, outbox: Path | None = None) -> None:
        self._transport = transport
        self._seed = seed
        self.key = keys.public_key(seed).hex()
        self.principal = principal or keys.address_of(bytes.fromhex(self.key))
        self._outbox = None if outbox is None else Outbox(outbox)
        self.attended: set[str] = set()
        """Ids that are being sent now: what is in the outbox besides has nobody who waits for its result."""

    def build(self, *messages: Message, valid_ms: int = VALID_MS) -> tuple[str, bytes]:
        """Make and sign a transaction, and store it where there is an outbox: (id, signed bytes)."""
        chain_id, now_ms = self._transport.chain()
        transaction = Transaction(
            chain_id=chain_id,
            messages=messages,
            nonce=secrets.token_hex(16),
            principal=self.principal,
            sequence=0,
            signer=self.key,
            valid_until=now_ms + valid_ms,
        )
        id = signing_bytes(encode(transaction)).hex()
        raw = sign_transaction(transaction, self._seed)
        if self._outbox is not None:
            self.attended.add(id)
            try:
                self._outbox.put(id, raw)
            except BaseException:
                self.attended.discard(id)
                raise
        return id, raw

    def send(self, *messages: Message, timeout_s: float = 60) -> Receipt:
        """Send `messages` as one transaction and wait for its receipt.

        Rejected where it was refused; Unreachable where no answer came in `timeout_s`, in which the same bytes were
        sent again and again.
        """
        deadline = time.monotonic() + timeout_s
        pause = 0.05
        while True:
            try:
                id, raw = self.build(*messages)
                break
            except Exception as error:
                if not is_ambiguous(error) or time.monotonic() + pause > deadline:
                    raise
                time.sleep(pause)
                pause = min(pause * 2, 2.0)
        return self.deliver(id, raw, max(0.0, deadline - time.monotonic()))

    def deliver(self, id: str, raw: bytes, timeout_s: float) -> Receipt:
        """Send signed bytes until their result is known, and forget them then."""
        try:
            return deliver(self._transport, self._outbox, id, raw, timeout_s)
        finally:
            self.attended.discard(id)

    def abandon(self, raw: bytes) -> None:
        """Never send these bytes again. They may have been applied all the same."""
        if self._outbox is not None:
            self._outbox.done(envelope_of(raw).id)


def deliver(transport: Transport, outbox: Outbox | None, id: str, raw: bytes, timeout_s: float) -> Receipt:
    """Send signed bytes again and again until their result is known; the outbox forgets them then.

    Rejected where they are refused for good; Unreachable where nothing is known after `timeout_s`.
    """
    deadline = time.monotonic() + timeout_s
    pause = 0.05
    while True:
        try:
            receipt = transport.post(raw)
        except Exception as error:
            if is_ambiguous(error):
                if time.monotonic() + pause > deadline:
                    raise Unreachable(f"no result of transaction {id} yet: {error}", raw) from error
                time.sleep(pause)
                pause = min(pause * 2, 2.0)
                continue
            if is_final(error) and outbox is not None:
                outbox.done(id)
            raise
        if outbox is not None:
            outbox.done(id)
        if receipt.code:
            raise Rejected(code_of(receipt.code), receipt.detail)
        return receipt


class Settled(msgspec.Struct, frozen=True):
    """What became of a transaction that an earlier process left: a receipt, a refusal, or neither where it is not known yet."""

    envelope: Envelope
    receipt: Receipt | None = None
    refusal: Exception | None = None


def settle(
    transport: Transport, outbox: Outbox, timeout_s: float = 10.0, *, attended: Container[str] = frozenset()
) -> list[Settled]:
    """Send again, byte for byte, what is in the outbox, at most `timeout_s` for each; ids in `attended` are left alone.

    What is applied, refused or expired is forgotten, the rest stays for the next time: without an answer, or made for
    another chain than the transport's (until a day after its validity). A file that is no transaction was never sent.
    """
    left = [(id, raw) for id, raw in outbox.pending() if id not in attended]
    if not left:
        return []
    chain_id, now_ms = transport.chain()
    found = []
    for id, raw in left:
        try:
            envelope = envelope_of(raw)
        except Rejected:
            outbox.done(id)
            continue
        if envelope.chain_id != chain_id:
            if 0 < envelope.valid_until < now_ms - _STRANGER_MS:
                outbox.done(id)
            continue
        try:
            found.append(Settled(envelope, receipt=deliver(transport, outbox, id, raw, timeout_s)))
        except Exception as error:
            if is_ambiguous(error):
                found.append(Settled(envelope))
            elif is_final(error):
                found.append(Settled(envelope, refusal=error))
            else:
                raise
    return found
