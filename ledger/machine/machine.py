"""The transition function: the state of a chain, and what a block makes of it."""

from collections.abc import Callable, Iterable, Sequence
from hashlib import sha256
from typing import Any, Self

from ledger.machine import admission, params, snapshot
from ledger.machine.accounts import ACCOUNTS, SUPPLIES, Account, Accounts, Supply
from ledger.machine.buckets import Allowance, Buckets
from ledger.machine.context import Context
from ledger.machine.crowding import Crowding
from ledger.machine.delegation import Delegations
from ledger.machine.escrow import Escrow
from ledger.machine.invariants import block_moves, check_all
from ledger.machine.module import Handler, Module, Since
from ledger.machine.remembered import Remembered
from ledger.machine.schedule import SCHEDULE, Agenda
from ledger.machine.snapshot import Parts
from ledger.machine.store import Store
from ledger.machine.tree import Tree
from ledger.protocol import genesis as rules
from ledger.protocol.block import BlockResult, Header, Receipt, encode_results, results_hash, transactions_hash
from ledger.protocol.encoding import encode
from ledger.protocol.errors import Code, Rejected, is_last_word
from ledger.protocol.genesis import Genesis
from ledger.protocol.keys import check_address
from ledger.protocol.money import MAX_AMOUNT, parse_amount
from ledger.protocol.proof import Proof, build, key_hash, state_root, value_hash
from ledger.protocol.transaction import Codec, Signed, Transaction

Refusal = tuple[Signed, Rejected]
"""A transaction that a block leaves out, and why."""


class UpgradeRequired(Exception):
    """The chain goes on under rules that this software does not know; `fix` says what to do."""

    exit_code = 1

    def __init__(self, protocol: int, height: int) -> None:
        super().__init__(f"block {height} follows protocol {protocol}; this software knows up to {rules.PROTOCOL}")
        self.protocol = protocol
        self.height = height
        self.fix = "install a release that knows this protocol and start again: what was committed stays as it is"


def check_protocol(protocol: int, height: int) -> None:
    """UpgradeRequired where the rules of a block are newer than those this software knows."""
    if protocol > rules.PROTOCOL:
        raise UpgradeRequired(protocol, height)


class Machine:
    """State in memory, changed by whole blocks only. An exception out of `apply_block` is a bug: stop and replay."""

    def __init__(self, genesis: Genesis, modules: Sequence[Module]) -> None:
        """State of height 0; ValueError or Rejected where the genesis contradicts itself."""
        self._wire(genesis, modules)
        self._allocate()
        self._start()
        snapshot.first(self.store, self._tree, self._shards)
        self.store.forget()
        self.head = Header(
            chain_id=genesis.chain_id,
            height=0,
            parent=genesis.hash,
            protocol=genesis.protocol,
            results=results_hash(*encode_results((), (), ())),
            state_root=self._state_root(),
            time_ms=genesis.time_ms,
            transactions=transactions_hash([]),
        )

    def _wire(self, genesis: Genesis, modules: Sequence[Module]) -> None:
        """Put the modules together: tables, handlers, parameters. State is empty after it."""
        self.genesis = genesis
        self._governance = params.Governance()
        self.modules: tuple[Module, ...] = (Accounts(), Delegations(), Escrow(), self._governance, *modules)
        self.store = Store([SCHEDULE, *(table for module in self.modules for table in module.tables)])
        self._handlers: dict[type[Any], Handler] = {}
        self._since: dict[type[Any], Since] = {}
        self._kinds: dict[str, Callable[[Context, str], None]] = {}
        for module in self.modules:
            for message, handler in module.messages.items():
                assert message not in self._handlers, f"two modules handle {message.__name__}"
                self._handlers[message] = handler
            assert module.since.keys() <= module.messages.keys(), "a module gates its own messages"
            self._since |= module.since
            for kind, due in module.kinds.items():
                assert kind not in self._kinds, f"two modules schedule {kind}"
                self._kinds[kind] = due
            self._governance.declare(module.parameters, module.parameters_since)
        self.codec = Codec(tuple(self._handlers))
        self._remembered = Remembered()
        self._tree = Tree()
        self._crowding = Crowding(self._tree)
        self._shards = snapshot.Shards()
        self.change = snapshot.NO_CHANGE
        """What the newest block changed; of the next one when that is applied."""
        self._newest = rules.PROTOCOL if self._since else 0
        """Under this protocol, and later ones, every message is known."""
        self._governance.follow(self.store)
        first = genesis.denominations[0].name if genesis.denominations else ""
        self._buckets = Buckets(self.store, self._governance.values, first)

    def _allocate(self) -> None:
        """Write the genesis into state."""
        genesis, store = self.genesis, self.store
        minted = {spec.name: 0 for spec in genesis.denominations}
        if len(minted) != len(genesis.denominations):
            raise ValueError("the genesis names a denomination twice")
        check_protocol(genesis.protocol, 0)
        for address in (genesis.governance, *(spec.issuer for spec in genesis.denominations)):
            check_address(address)
        for allocation in genesis.allocations:
            check_address(allocation.address)
            amount = parse_amount(allocation.amount)
            minted[allocation.denomination] += amount
            account = store.get(ACCOUNTS, allocation.address) or Account(address=allocation.address)
            store.put(ACCOUNTS, account.holding(allocation.denomination, account.holds(allocation.denomination) + amount))
        for spec in genesis.denominations:
            if minted[spec.name] > MAX_AMOUNT:
                raise ValueError(f"the genesis allocates more {spec.name} than an amount can hold")
            store.put(SUPPLIES, Supply(burned=0, denomination=spec.name, issuer=spec.issuer, minted=minted[spec.name]))
        for name, value in sorted(genesis.parameters.items()):
            if not self._governance.fits(name, value, genesis.protocol):
                raise ValueError(f"the genesis sets parameter {name} to {value}, which is unknown or out of bounds")
            store.put(params.PARAMETERS, params.Parameter(name=name, value=value))
        store.put(params.CHAIN, params.Chain(height=0, protocol=genesis.protocol, time_ms=genesis.time_ms))

    def _start(self) -> None:
        """Build every cache from state."""
        self._agenda = Agenda(self.store)
        for module in self.modules:
            module.rebuild(self.store)

    def apply_block(self, time_ms: int, transactions: Iterable[Signed], verified: bool = False) -> BlockResult:
        """Apply a block: what begins it, what fell due, transactions, what ends it; then root and header.

        `time_ms` is block time, after the last block's. `verified` says that the signatures were found good. Each
        transaction is asked for when the one before it was applied: what is decoded then is still at hand.
        AssertionError is a bug, UpgradeRequired a newer protocol; the machine is of no use after either.
        """
        return self._apply(time_ms, transactions, verified, None)

    def propose_block(self, time_ms: int, transactions: Iterable[Signed]) -> tuple[BlockResult, list[Refusal]]:
        """Apply a block of those that may act, and return what was left out of it, with the reason.

        What is left out (expired, remembered, no key for it, an empty bucket) has changed nothing: the block is the
        same as one made of the others alone. Signatures were found good, and every id comes once. Otherwise like
        `apply_block`.
        """
        refusals: list[Refusal] = []
        return self._apply(time_ms, transactions, True, refusals), refusals

    def _apply(self, time_ms: int, transactions: Iterable[Signed], verified: bool, refusals: list[Refusal] | None) -> BlockResult:
        assert time_ms > self.head.time_ms, f"block time {time_ms} is not after {self.head.time_ms}"
        height = self.head.height + 1
        self._remembered.forget(time_ms)
        self._crowding.begin_block()
        begin = self._context(time_ms, height)
        begin.protocol = params.advance(begin)
        check_protocol(begin.protocol, height)
        for module in self.modules:
            module.begin_block(begin)
        self._run_due(begin, time_ms)
        raws, receipts = self._transact_all(transactions, self._context(time_ms, height, begin.protocol), verified, refusals)
        end = self._context(time_ms, height, begin.protocol)
        for module in self.modules:
            module.end_block(end)
        results = encode_results(receipts, begin.events, end.events)
        self.head = Header(
            chain_id=self.genesis.chain_id,
            height=height,
            parent=self.head.hash,
            protocol=begin.protocol,
            results=results_hash(*results),
            state_root=self._commit(),
            time_ms=time_ms,
            transactions=transactions_hash(raws),
        )
        return BlockResult(
            header=self.head,
            receipts=tuple(receipts),
            begin_events=tuple(begin.events),
            end_events=tuple(end.events),
            encoded=results,
        )

    def _transact_all(
        self, transactions: Iterable[Signed], ctx: Context, verified: bool, refusals: list[Refusal] | None
    ) -> tuple[list[bytes], list[Receipt]]:
        """Apply transactions in order; with `refusals`, what may not act goes there instead of into the block."""
        raws: list[bytes] = []
        receipts: list[Receipt] = []
        transact = self._transact
        for signed in transactions:
            receipt = transact(signed, len(raws), ctx, verified, refusals)
            if receipt is not None:
                raws.append(signed.raw)
                receipts.append(receipt)
        return raws, receipts

    def _context(self, time_ms: int, height: int, protocol: int = 0) -> Context:
        return Context(
            self.store,
            self._governance.values,
            self._notify,
            self._buckets,
            chain_id=self.genesis.chain_id,
            governance=self.genesis.governance,
            height=height,
            protocol=protocol,
            time=time_ms,
        )

    def _notify(self, ctx: Context, purse: str, what: str) -> None:
        for module in self.modules:
            module.on_purse(ctx, purse, what)

    def _run_due(self, ctx: Context, time_ms: int) -> None:
        """Run what fell due, each at its own due time; what that schedules may fall due in turn."""
        while (item := self._agenda.take(time_ms)) is not None:
            ctx.time, kind, id = item
            self._kinds[kind](ctx, id)
        ctx.time = time_ms

    def _transact(
        self, signed: Signed, index: int, ctx: Context, verified: bool, refusals: list[Refusal] | None
    ) -> Receipt | None:
        """Apply one transaction, or refuse it; its id is remembered once its key was found to be one that may act.

        None where it may not act and `refusals` takes it instead.
        """
        transaction = signed.transaction
        ctx.principal, ctx.signer, ctx.tx_id = transaction.principal, transaction.signer, signed.id
        ctx.events = []
        store = self.store
        try:
            if not verified and not signed.signature_is_good():
                raise Rejected(Code.BAD_SIGNATURE, "the signature does not match")
            admission.check_window(transaction, ctx.chain_id, ctx.time, ctx.parameter("max_validity_ms"))
            if transaction.nonce and self._remembered.knows(signed.id, transaction.valid_until):
                raise Rejected(Code.ALREADY_APPLIED, "a transaction of this id has its result")
            if ctx.protocol < self._newest:
                self._check_known(transaction, ctx.protocol)
            ctx.delegated = admission.admit(ctx, transaction)
        except Rejected as refusal:
            return self._not_admitted(signed, index, ctx, refusal, refusals)
        mark = store.mark()  # what `admit` wrote stays: a refusal costs as much as a success
        code, detail = 0, ""
        try:
            handlers = self._handlers
            for message in transaction.messages:
                handlers[type(message)](ctx, message)
            if made := store.made(mark):
                self._crowding.admit(made, ctx.parameter("bucket_records"))
        except Rejected as refusal:
            store.rollback(mark)
            code, detail = int(refusal.code), refusal.detail
            ctx.events = []
        store.keep()
        receipt = Receipt(signed.id, ctx.height, index, code, tuple(ctx.events), detail)
        if transaction.nonce:
            self._remembered.add(signed.id, signed.signed_bytes, transaction.valid_until, receipt)
        return receipt

    def _check_known(self, transaction: Transaction, protocol: int) -> None:
        """UNKNOWN_MESSAGE where one of the messages is of newer rules than those of `protocol`."""
        for message in transaction.messages:
            since = self._since.get(type(message), 1)
            least = since if isinstance(since, int) else since(message)
            if least > protocol:
                name = type(message).__struct_config__.tag
                raise Rejected(Code.UNKNOWN_MESSAGE, f"this {name} is of protocol {least}, the chain follows {protocol}")

    def _not_admitted(
        self, signed: Signed, index: int, ctx: Context, refusal: Rejected, refusals: list[Refusal] | None
    ) -> Receipt | None:
        """The receipt of what may not act, which has changed nothing; None where `refusals` takes it."""
        if refusals is not None:
            refusals.append((signed, refusal))
            return None
        receipt = Receipt(signed.id, ctx.height, index, int(refusal.code), (), refusal.detail)
        # Refused for its key or sequence it has its result; for its window or its bucket it has none yet.
        if signed.transaction.nonce and is_last_word(refusal.code):
            self._remembered.add(signed.id, signed.signed_bytes, signed.transaction.valid_until, receipt)
        return receipt

    def _commit(self) -> str:
        """Take down what changed, in the tree and as `change`; check the money; empty the undo log; return the root in hex."""
        changes = list(self.store.changes())
        block_moves(changes)
        entries: list[tuple[bytes, bytes | None]] = []
        lines: dict[str, list[bytes]] = {}
        gone: dict[str, list[str]] = {}
        for table, key, old, new in changes:
            # key_hash(f"{table.name}/{key}") and value_hash(encode(new)), without a call for each.
            kh = sha256(table.prefix + key.encode()).digest()
            if new is None:
                entries.append((kh, None))
                gone.setdefault(table.name, []).append(key)
                continue
            value = encode(new)
            entries.append((kh, sha256(b"\x00" + value).digest()))
            lines.setdefault(table.name, []).append(value)
            if old is None:
                self._shards.add(kh[0], table.name, key)
        self._tree.update(entries)
        self.change = snapshot.pack_change(lines, gone, self._remembered.take_new())
        self.store.forget()
        return self._state_root()

    def _state_root(self) -> str:
        return state_root(self._tree.root, self._remembered.roots()).hex()

    def check(self, signed: Signed, now_ms: int | None = None) -> None:
        """Refuse cheaply, before queueing, what a block would refuse; nothing changes and the signature is not checked.

        `now_ms` is the engine's estimate of block time. Without it only what no later block could accept is refused:
        the last block may be long ago, so neither a long validity nor an empty bucket is judged.
        """
        transaction = signed.transaction
        now = self.head.time_ms if now_ms is None else max(now_ms, self.head.time_ms)
        values = self._governance.values
        longest = None if now_ms is None else values["max_validity_ms"]
        admission.check_window(transaction, self.genesis.chain_id, now, longest)
        if transaction.nonce and self._remembered.knows(signed.id, transaction.valid_until):
            raise Rejected(Code.ALREADY_APPLIED, "a transaction of this id has its result")
        protocol = self.protocol_ahead
        if protocol < self._newest:
            # An upgrade that is planned may come within any validity.
            planned = params.chain(self.store).upgrade_protocol
            self._check_known(transaction, protocol if now_ms is not None else max(protocol, planned))
        account, _ = admission.check_key(self.store, transaction, now)
        if not transaction.nonce:
            ahead = transaction.sequence - account.sequence
            # The ones between may come in a later block, but not in the next.
            if ahead < 1 or (now_ms is not None and ahead > 1):
                raise Rejected(Code.BAD_SEQUENCE, f"the next sequence is {account.sequence + 1}")
        if now_ms is None:
            return
        if protocol >= 2:
            self._buckets.take(account, transaction, now)
        else:
            admission.check_rate(account, now, values["bucket_burst"], values["bucket_refill_per_s"])

    def parameters(self) -> dict[str, int]:
        """Return the value now of every parameter that there is under the rules of the next block, by name."""
        protocol = self.protocol_ahead
        return {k: v for k, v in sorted(self._governance.values.items()) if self._governance.knows(k, protocol)}

    def planned_upgrade(self) -> tuple[int, int] | None:
        """Return (height, protocol) of the upgrade that is planned; None without."""
        now = params.chain(self.store)
        return (now.upgrade_height, now.upgrade_protocol) if now.upgrade_height else None

    @property
    def protocol_ahead(self) -> int:
        """The rules that the next block follows."""
        return params.protocol_ahead(self.store)

    def allowance(self, account: Account, now_ms: int) -> Allowance:
        """Return what an account may send at `now_ms`, under the rules of the next block."""
        if self.protocol_ahead >= 2:
            return self._buckets.allowance(account, now_ms)
        burst, refill = self._governance.values["bucket_burst"], self._governance.values["bucket_refill_per_s"]
        left = admission.bucket_at(account, now_ms, burst, refill) // 1000
        return Allowance(left=left, at_once=burst, per_minute=refill * 60)

    def next_due(self) -> int | None:
        """Return the earliest time in ms at which something falls due, or None."""
        return self._agenda.next_due()

    def receipt_of(self, tx_id: str) -> Receipt | None:
        """Return the first result of an id that was remembered lately; the log has those that are older."""
        return self._remembered.receipt_of(tx_id)

    def prove(self, key: str) -> Proof:
        """Return a proof that the record of full key `table/key` is in the state of the head, or is not."""
        table, _, name = key.partition("/")
        record = self.store.get(self.store.tables[table], name) if table in self.store.tables else None
        kh = key_hash(key)
        value = None if record is None else encode(record)
        return build(key, value, self._tree.bucket(kh), self._tree.path(kh), self._remembered.roots())

    def shard(self, number: int) -> bytes:
        """Return one of the 256 shards of the state as it is now, for `load`."""
        return self._shards.dump(number, self.store)

    def remembered_ids(self) -> list[tuple[int, bytes]]:
        """Return (minute, ids of 32 bytes each in order of application) of all that is remembered."""
        return [(minute, bytes.fromhex("".join(names))) for minute, names in self._remembered.ids()]

    def snapshot(self) -> bytes:
        """Return the whole state with genesis and head, for `restore`."""
        return snapshot.dump(self.genesis, self.head, self.store, self._shards, self.remembered_ids())

    @classmethod
    def restore(cls, genesis: Genesis, modules: Sequence[Module], data: bytes) -> Self:
        """Return a machine in the state of a snapshot; ValueError where the state does not have its head's root."""
        found = snapshot.load(data)
        if found.genesis != genesis:
            raise ValueError(f"the snapshot is of chain {found.genesis.chain_id}, or of another genesis")
        return cls.load(genesis, modules, found.head, Parts(shards=found.shards, changes=(), ids=(found.ids,)))

    @classmethod
    def load(cls, genesis: Genesis, modules: Sequence[Module], head: Header, parts: Parts) -> Self:
        """Return a machine in the state of `parts`; ValueError where that does not have the root of `head`."""
        machine = cls.__new__(cls)
        machine._wire(genesis, modules)
        snapshot.fill(parts, machine.store, machine._tree, machine._shards, machine._remembered)
        machine._remembered.forget(head.time_ms)
        machine.head = head
        # Before anything is made of it: only a state that was committed can be relied on to make sense.
        if head.chain_id != genesis.chain_id or machine._state_root() != head.state_root:
            raise ValueError("the state of the snapshot does not have the root that its header names")
        machine._start()
        return machine

    def invariants(self) -> None:
        """Check everything that must hold, over the whole state and from scratch; AssertionError names what does not."""
        self.store.check()
        self._agenda.check()
        self._buckets.check()
        check_all(self.store)
        for module in self.modules:
            module.invariants(self.store)
        tree = Tree()
        tree.update(
            (key_hash(f"{table.name}/{table.key(record)}"), value_hash(encode(record)))
            for table in self.store.tables.values()
            for record in self.store.scan(table)
        )
        assert tree.root == self._tree.root, "the tree differs from one built from scratch"
        assert self._state_root() == self.head.state_root, "the state changed outside a block"
