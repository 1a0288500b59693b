"""What the daemon knows of a lease: what the ledger wants, and what was done about it here."""

from enum import StrEnum
from typing import Final

import msgspec

from marketplace.protocol.records import LeaseState
from provider.runtime.port import Container

OPEN: Final = (LeaseState.MATCHED, LeaseState.ACTIVE, LeaseState.DOWN)
"""States in which containers are to run while the purse pays."""


class Phase(StrEnum):
    """Where a lease stands, as its tenant is told."""

    WAITING_MANIFEST = "waiting_manifest"
    PREPARING = "preparing"
    STARTING = "starting"
    RUNNING = "running"
    FAILED = "failed"
    STOPPED = "stopped"
    CLOSED = "closed"


class Wanted(msgspec.Struct, frozen=True):
    """A lease as the ledger last told it. Times are block time in ms; `funded_until_ms` None: no end in sight."""

    lease: str
    state: LeaseState
    generation: int
    host: str
    devices: tuple[str, ...] = ()
    simulated: bool = False
    created_ms: int = 0
    funded_until_ms: int | None = None
    released: bool = False
    reason: str = ""
    pulling_ms: int = 0
    """Since when we said that its images are pulled; 0: we did not."""


class Slot(msgspec.Struct, frozen=True, order=True):
    """A container that should be: replica `replica` of a service."""

    service: str
    replica: int


class Entry(msgspec.Struct, frozen=True):
    """A lease in the journal. Times are block time in ms by the daemon's own estimate."""

    lease: str
    wanted: Wanted
    first_seen_ms: int
    spec: str = ""
    """Hash of the manifest that is to run; empty until one came. Containers carry it as a label."""
    slots: tuple[Slot, ...] = ()
    phase: Phase = Phase.WAITING_MANIFEST
    error: str = ""
    started_ms: int = 0
    """When the last start succeeded."""
    failures: int = 0
    """Starts in a row that failed or whose containers ended at once."""
    failure_kind: str = ""
    """Why the last one failed: image_failed or start_failed."""
    next_try_ms: int = 0
    """Nothing is tried for this lease before."""
    started_spec: str = ""
    """Manifest of the last start."""
    started_generation: int = 0
    """Generation of the last start; 0 before the first."""
    images: dict[str, str] = {}
    """Digest of each service's image, of the last start."""
    ports: dict[str, int] = {}
    """`service/replica/port/protocol` → host port, kept over restarts."""
    missing_since_ms: int = 0
    """Since when the ledger knows no such lease; 0: it does."""


class Start(msgspec.Struct, frozen=True):
    """Make the lease's containers run at this generation."""

    lease: str
    generation: int
    spec: str
    restart: bool = False
    """True where some ended and are started again."""


class Stop(msgspec.Struct, frozen=True):
    """Stop the containers and keep them: the purse is dry."""

    lease: str
    why: str


class Remove(msgspec.Struct, frozen=True):
    """Remove all that the lease has on the host."""

    lease: str
    why: str


class RemoveStale(msgspec.Struct, frozen=True):
    """Remove containers of other generations, or of an older manifest; volumes and network stay."""

    lease: str
    keep_generation: int


class Report(msgspec.Struct, frozen=True):
    """Tell the ledger: `kind` is active, down, up or release. `reason` is that of down."""

    lease: str
    generation: int
    kind: str
    reason: str = ""


class Close(msgspec.Struct, frozen=True):
    """End the lease on the ledger, with a typed reason."""

    lease: str
    generation: int
    reason: str
    detail: str


class Forget(msgspec.Struct, frozen=True):
    """Nothing of the lease is left here or to be said: drop it from the journal."""

    lease: str


class Note(msgspec.Struct, frozen=True):
    """Change what the journal says of the lease; `changes` are fields of `Entry`."""

    lease: str
    changes: dict[str, object]


class Wait(msgspec.Struct, frozen=True):
    """Look at the lease again at `until_ms`, block time."""

    lease: str
    until_ms: int


Action = Start | Stop | Remove | RemoveStale | Report | Close | Forget | Note | Wait


def slot_of(container: Container) -> Slot:
    """The slot that a container fills."""
    return Slot(container.service, container.replica)
