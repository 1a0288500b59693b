"""How rules plug into the machine: a module brings tables, messages, scheduled kinds and parameters."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Protocol

from ledger.machine.context import Context
from ledger.machine.store import Store, Table
from ledger.protocol.messages import Message

Handler = Callable[[Context, Any], None]
Bounds = tuple[int, int, int]
"""A parameter's (default, lowest, highest)."""

Since = int | Callable[[Any], int]
"""The protocol from which on a kind of message is understood, or what says it of a message: one may use a newer field."""


class Module(Protocol):
    """What the machine asks of a module. `Plain` answers all of it with nothing."""

    @property
    def name(self) -> str:
        """What the module is called."""

    @property
    def tables(self) -> tuple[Table[Any], ...]:
        """The kinds of records that are the module's."""

    @property
    def messages(self) -> Mapping[type[Message], Handler]:
        """Handlers by message type; they raise Rejected to refuse, and then nothing of the transaction stays."""

    @property
    def since(self) -> Mapping[type[Message], Since]:
        """From which protocol on messages are understood, where not from the first: under older rules they are unknown."""

    @property
    def kinds(self) -> Mapping[str, Callable[[Context, str], None]]:
        """Handlers by scheduled kind, called with the id and with `ctx.time` at its own due time; they may not refuse."""

    @property
    def parameters(self) -> Mapping[str, Bounds]:
        """Bounds by parameter name."""

    @property
    def parameters_since(self) -> Mapping[str, int]:
        """From which protocol on there are parameters, by name, where not from the first."""

    def begin_block(self, ctx: Context) -> None:
        """Called before what fell due, at block time."""

    def end_block(self, ctx: Context) -> None:
        """Called after the transactions."""

    def on_purse(self, ctx: Context, purse: str, what: str) -> None:
        """Called when a purse nears its end, runs dry, is funded again, is added to, or stayed dry too long."""

    def invariants(self, store: Store) -> None:
        """Check everything that must hold; AssertionError where it does not."""

    def rebuild(self, store: Store) -> None:
        """Build caches from state, after it was loaded."""


class Plain:
    """A module that brings nothing; others override what they need."""

    name: str = ""
    tables: tuple[Table[Any], ...] = ()
    messages: Mapping[type[Message], Handler] = MappingProxyType({})
    since: Mapping[type[Message], Since] = MappingProxyType({})
    kinds: Mapping[str, Callable[[Context, str], None]] = MappingProxyType({})
    parameters: Mapping[str, Bounds] = MappingProxyType({})
    parameters_since: Mapping[str, int] = MappingProxyType({})

    def begin_block(self, ctx: Context) -> None:
        """Do nothing."""

    def end_block(self, ctx: Context) -> None:
        """Do nothing."""

    def on_purse(self, ctx: Context, purse: str, what: str) -> None:
        """Do nothing."""

    def invariants(self, store: Store) -> None:
        """Check nothing."""

    def rebuild(self, store: Store) -> None:
        """Build nothing."""
