"""Parameters and upgrades: what governance may change, within bounds, and from which height."""

from collections.abc import Mapping
from typing import Final

import msgspec

from ledger.machine.context import Context
from ledger.machine.module import Bounds, Plain
from ledger.machine.store import Store, Table
from ledger.protocol.errors import Code, require
from ledger.protocol.events import ParameterSet, Upgraded, UpgradePlanned
from ledger.protocol.messages import SetParameter, Upgrade

HOUR_MS: Final = 3_600_000

LEDGER_PARAMETERS: Final[Mapping[str, Bounds]] = {
    "backdate_ms": (24 * HOUR_MS, 0, 30 * 24 * HOUR_MS),
    "bucket_burst": (2_000, 1, 1_000_000),
    "bucket_first": (5, 0, 1_000_000),
    "bucket_floor": (20, 1, 1_000_000),
    "bucket_floor_per_min": (12, 1, 60_000_000),
    "bucket_full": (10**9, 1, 10**15),
    "bucket_opening": (5, 0, 1_000_000),
    "bucket_records": (4_096, 256, 1_000_000),
    "bucket_refill_per_s": (200, 1, 1_000_000),
    "max_validity_ms": (120_000, 1_000, 600_000),
    "purse_grace_ms": (HOUR_MS, 1, 30 * 24 * HOUR_MS),
    "purse_max_deposits": (32, 1, 1_000),
    "purse_payout_ms": (HOUR_MS, 1_000, 30 * 24 * HOUR_MS),
    "purse_reserve_ms": (0, 0, 30 * 24 * HOUR_MS),
    "purse_warning_ms": (600_000, 0, 30 * 24 * HOUR_MS),
    "take_rate_ppm": (0, 0, 500_000),
}
"""The ledger's own parameters: name to (default, lowest, highest). The README says what each means."""

LEDGER_PARAMETERS_SINCE: Final[Mapping[str, int]] = dict.fromkeys(
    ("bucket_first", "bucket_floor", "bucket_floor_per_min", "bucket_full", "bucket_opening"), 2
)
"""From which protocol on there are some of them."""


class Parameter(msgspec.Struct, frozen=True):
    """A parameter that differs, or once differed, from its default."""

    name: str
    value: int


class Chain(msgspec.Struct, frozen=True):
    """Where the chain stands: the last block's height and time, the rules in force, and a planned upgrade (0: none)."""

    height: int
    protocol: int
    time_ms: int
    upgrade_height: int = 0
    upgrade_protocol: int = 0


PARAMETERS: Table[Parameter] = Table("parameter", Parameter, lambda p: p.name)
CHAIN: Table[Chain] = Table("chain", Chain, lambda c: "chain")


def value(store: Store, name: str) -> int:
    """Return the value of one of the ledger's own parameters, from state alone."""
    found = store.get(PARAMETERS, name)
    return found.value if found else LEDGER_PARAMETERS[name][0]


def chain(store: Store) -> Chain:
    """Return the one record of where the chain stands."""
    found = store.get(CHAIN, "chain")
    assert found is not None
    return found


def protocol_ahead(store: Store) -> int:
    """Return the rules that the next block follows."""
    now = chain(store)
    return now.upgrade_protocol if now.upgrade_height == now.height + 1 else now.protocol


def advance(ctx: Context) -> int:
    """Write the new block's height and time, start a planned upgrade at its height; return the rules in force."""
    old = chain(ctx.store)
    protocol = old.protocol
    new = Chain(
        height=ctx.height,
        protocol=protocol,
        time_ms=ctx.time,
        upgrade_height=old.upgrade_height,
        upgrade_protocol=old.upgrade_protocol,
    )
    if old.upgrade_height == ctx.height:
        protocol = old.upgrade_protocol
        new = Chain(height=ctx.height, protocol=protocol, time_ms=ctx.time)
        ctx.emit(Upgraded(protocol=protocol))
    ctx.store.put(CHAIN, new)
    return protocol


class Governance(Plain):
    """The module of SetParameter and Upgrade; it knows the bounds of every module's parameters."""

    name = "governance"
    tables = (PARAMETERS, CHAIN)
    parameters = LEDGER_PARAMETERS
    parameters_since = LEDGER_PARAMETERS_SINCE

    def __init__(self) -> None:
        self.bounds: dict[str, Bounds] = {}
        self._since: dict[str, int] = {}
        self.values: dict[str, int] = {}
        self.messages = {SetParameter: self._set, Upgrade: self._upgrade}

    def declare(self, parameters: Mapping[str, Bounds], since: Mapping[str, int]) -> None:
        """Take in a module's parameters and from which protocol on there are some; names are unique over all modules."""
        assert since.keys() <= parameters.keys(), since
        self._since |= since
        for name, (default, lowest, highest) in parameters.items():
            assert name not in self.bounds, f"two modules declare {name}"
            assert lowest <= default <= highest, name
            self.bounds[name] = (default, lowest, highest)
            self.values[name] = default

    def follow(self, store: Store) -> None:
        """Keep the values in force beside the state, through rollbacks too."""

        def changed(old: Parameter | None, new: Parameter | None) -> None:
            name = (new or old).name  # type: ignore[union-attr]
            self.values[name] = new.value if new else self.bounds[name][0]

        store.watch(PARAMETERS, changed)

    def knows(self, name: str, protocol: int) -> bool:
        """True for a parameter that there is under a protocol."""
        return name in self.bounds and self._since.get(name, 1) <= protocol

    def fits(self, name: str, value: int, protocol: int) -> bool:
        """True for a parameter that there is under a protocol, and a value within its bounds."""
        return self.knows(name, protocol) and self.bounds[name][1] <= value <= self.bounds[name][2]

    def _set(self, ctx: Context, message: SetParameter) -> None:
        require(ctx.principal == ctx.governance, Code.NOT_GOVERNANCE, f"{ctx.governance} governs")
        require(self.knows(message.name, ctx.protocol), Code.PARAMETER_REFUSED, f"there is no parameter {message.name}")
        fits = self.fits(message.name, message.value, ctx.protocol)
        require(fits, Code.PARAMETER_REFUSED, f"not within {self.bounds[message.name][1:]}")
        ctx.store.put(PARAMETERS, Parameter(name=message.name, value=message.value))
        ctx.emit(ParameterSet(name=message.name, value=message.value))

    def _upgrade(self, ctx: Context, message: Upgrade) -> None:
        require(ctx.principal == ctx.governance, Code.NOT_GOVERNANCE, f"{ctx.governance} governs")
        now = chain(ctx.store)
        require(message.height > ctx.height, Code.UPGRADE_REFUSED, f"height {ctx.height} has begun")
        require(message.protocol > now.protocol, Code.UPGRADE_REFUSED, f"the rules in force are {now.protocol}")
        planned = msgspec.structs.replace(now, upgrade_height=message.height, upgrade_protocol=message.protocol)
        ctx.store.put(CHAIN, planned)
        ctx.emit(UpgradePlanned(height=message.height, protocol=message.protocol))
