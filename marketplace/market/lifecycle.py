"""Every state of the market's records and every move between them: one table, one function.

lease       matched → active ⇄ down; each of them → paused while the purse is dry → matched again at the next
            generation; each of them → closed
order       open → matched → closed, or open → closed; a group that goes on gets a new order
device      free → leased → free, or leased → cordoned → free
deployment  active → closed
"""

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, TypeVar

import msgspec

from marketplace.protocol.records import DeploymentState, DeviceState, LeaseState, OrderState

R = TypeVar("R", bound=msgspec.Struct)

# By type first: members of two StrEnums with one text are equal.
TRANSITIONS: Final[Mapping[type[StrEnum], Mapping[Any, frozenset[Any]]]] = MappingProxyType(
    {
        OrderState: MappingProxyType(
            {
                OrderState.OPEN: frozenset({OrderState.MATCHED, OrderState.CLOSED}),
                OrderState.MATCHED: frozenset({OrderState.CLOSED}),
                OrderState.CLOSED: frozenset(),
            }
        ),
        LeaseState: MappingProxyType(
            {
                LeaseState.MATCHED: frozenset({LeaseState.ACTIVE, LeaseState.PAUSED, LeaseState.CLOSED}),
                LeaseState.ACTIVE: frozenset({LeaseState.DOWN, LeaseState.PAUSED, LeaseState.CLOSED}),
                LeaseState.DOWN: frozenset({LeaseState.ACTIVE, LeaseState.PAUSED, LeaseState.CLOSED}),
                LeaseState.PAUSED: frozenset({LeaseState.MATCHED, LeaseState.CLOSED}),
                LeaseState.CLOSED: frozenset(),
            }
        ),
        DeploymentState: MappingProxyType(
            {DeploymentState.ACTIVE: frozenset({DeploymentState.CLOSED}), DeploymentState.CLOSED: frozenset()}
        ),
        DeviceState: MappingProxyType(
            {
                DeviceState.FREE: frozenset({DeviceState.LEASED}),
                DeviceState.LEASED: frozenset({DeviceState.FREE, DeviceState.CORDONED}),
                DeviceState.CORDONED: frozenset({DeviceState.FREE}),
            }
        ),
    }
)


def advance(record: R, to: StrEnum, **changes: object) -> R:
    """The record in state `to`, with other fields changed. A move that the table forbids is our bug, not the sender's."""
    state = record.state  # type: ignore[attr-defined]
    assert type(state) is type(to), f"{state!r} and {to!r} are states of different things"
    assert to in TRANSITIONS[type(to)][state], f"{type(record).__name__} {state} -> {to}"
    return msgspec.structs.replace(record, state=to, **changes)
