"""The first state of a chain: its name, its money, who governs it."""

from typing import Final

import msgspec

from ledger.protocol.encoding import digest, encode
from ledger.protocol.keys import Address
from ledger.protocol.messages import TimeMs
from ledger.protocol.money import Amount, Denomination
from ledger.protocol.transaction import ChainId

PROTOCOL: Final = 2
"""The newest rules this code knows."""


class Allocation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Money that exists from the start; it counts as minted."""

    address: Address
    amount: Amount
    denomination: Denomination


class DenominationSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of money and the one account that may mint and burn it."""

    issuer: Address
    name: Denomination


class Genesis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A chain's first state; its hash is the parent of block 1. `parameters` override defaults by name."""

    chain_id: ChainId
    denominations: tuple[DenominationSpec, ...]
    governance: Address
    time_ms: TimeMs
    allocations: tuple[Allocation, ...] = ()
    dev: bool = False
    """True for a development chain: its node may run a faucet."""
    parameters: dict[str, int] = {}
    protocol: int = PROTOCOL

    @property
    def hash(self) -> str:
        """Hex of the hash over the canonical bytes."""
        return digest("genesis/v1", encode(self)).hex()
