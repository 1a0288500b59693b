"""What was done for each lease, kept over kill -9: one small SQLite file in the provider's home.

Held in memory as well; every durable change is on the disk before it is acted upon. One process writes it: the lock
beside it names that process.
"""

import fcntl
import os
import sqlite3
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from marketplace.protocol.resources import ResourceUnit
from provider.leases.model import Entry, Phase, Slot


class HomeBusy(Exception):
    """Another daemon works with this home."""

    exit_code = 5

    def __init__(self, folder: Path, pid: str) -> None:
        super().__init__(f"a provider (process {pid}) is running with the home {folder}")
        self.fix = "stop it first, or give this one another folder with GPUBID_HOME or --home"


class JournalFailed(Exception):
    """The journal cannot be written or read: nothing may be done that is not in it."""

    exit_code = 1

    def __init__(self, path: Path, error: Exception) -> None:
        super().__init__(f"the journal {path} cannot be used: {error}")
        self.fix = "make room on that disk, or mend its rights, and start again; running leases are not touched"


class HomeLock:
    """The right to be the one daemon of a home; the kernel gives it back whatever ends the process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise JournalFailed(folder, error) from None
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            pid = os.pread(self._descriptor, 32, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            raise HomeBusy(folder, pid or "unknown") from None
        try:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            os.close(self._descriptor)
            raise JournalFailed(folder / "lock", error) from None

    def release(self) -> None:
        """Give it back."""
        os.close(self._descriptor)


class Manifest(msgspec.Struct, frozen=True):
    """A manifest as received (JSON), which of its groups the lease runs, and the units that were ordered for it."""

    lease: str
    spec: str
    group: str
    resources: tuple[ResourceUnit, ...]
    body: bytes


class Journal:
    """The journal at `path`; safe from any thread. JournalFailed where the disk fails."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._entries: dict[str, Entry] = {}
        self._manifests: dict[str, Manifest] = {}
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._database = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            try:
                self._load()
            except BaseException:
                self._database.close()
                raise
        except (OSError, sqlite3.Error, msgspec.MsgspecError) as error:
            raise JournalFailed(path, error) from None

    def _load(self) -> None:
        self._database.executescript(
            """
            PRAGMA journal_mode = WAL; PRAGMA synchronous = FULL;
            CREATE TABLE IF NOT EXISTS entry (lease TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;
            CREATE TABLE IF NOT EXISTS manifest (lease TEXT PRIMARY KEY, body BLOB NOT NULL) STRICT;
            CREATE TABLE IF NOT EXISTS fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
            """
        )
        for lease, body in self._database.execute("SELECT lease, body FROM entry"):
            self._entries[lease] = msgspec.json.decode(body, type=Entry)
        for lease, body in self._database.execute("SELECT lease, body FROM manifest"):
            self._manifests[lease] = msgspec.json.decode(body, type=Manifest)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def _write(self, *statements: tuple[str, tuple[Any, ...]]) -> None:
        """All statements or none, on the disk when it returns."""
        try:
            self._database.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                self._database.execute(statement, values)
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
            raise JournalFailed(self._path, error) from None

    def entries(self) -> dict[str, Entry]:
        """All leases, by id; a copy."""
        with self._lock:
            return dict(self._entries)

    def get(self, lease: str) -> Entry | None:
        """One lease."""
        return self._entries.get(lease)

    def add(self, entry: Entry) -> Entry:
        """Begin a lease; one that is there already stays as it is."""
        with self._lock:
            if entry.lease not in self._entries:
                self._write(_put(entry))
                self._entries[entry.lease] = entry
            return self._entries[entry.lease]

    def change(self, lease: str, *, durable: bool = True, **changes: Any) -> Entry | None:
        """Change fields of a lease; None where it is gone. What is not `durable` reaches the disk with the next that is."""
        with self._lock:
            entry = self._entries.get(lease)
            if entry is None:
                return None
            changed = msgspec.structs.replace(entry, **changes)
            if changed != entry:
                if durable:
                    self._write(_put(changed))
                self._entries[lease] = changed
            return changed

    def keep_manifest(self, manifest: Manifest, slots: tuple[Slot, ...]) -> Entry | None:
        """Keep a manifest and have its lease run it, with a clean slate, in one step; None where the lease is gone."""
        with self._lock:
            entry = self._entries.get(manifest.lease)
            if entry is None:
                return None
            # No start counts as one of it, even of a manifest that comes back: containers that were taken away for another one
            # in between are no failure of the host.
            changed = msgspec.structs.replace(
                entry, spec=manifest.spec, slots=slots, phase=Phase.PREPARING,
                failures=0, next_try_ms=0, error="", started_spec="",
            )  # fmt: skip
            put = ("INSERT OR REPLACE INTO manifest VALUES (?, ?)", (manifest.lease, msgspec.json.encode(manifest)))
            self._write(_put(changed), put)
            self._entries[manifest.lease] = changed
            self._manifests[manifest.lease] = manifest
            return changed

    def manifest(self, lease: str) -> Manifest | None:
        """The manifest of a lease."""
        return self._manifests.get(lease)

    def forget(self, lease: str) -> None:
        """Drop a lease and its manifest."""
        with self._lock:
            if lease in self._entries:
                self._write(("DELETE FROM entry WHERE lease = ?", (lease,)), ("DELETE FROM manifest WHERE lease = ?", (lease,)))
                del self._entries[lease]
                self._manifests.pop(lease, None)

    def fact(self, name: str, default: str = "") -> str:
        """A fact of the daemon's own."""
        with self._lock:
            row = self._database.execute("SELECT value FROM fact WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else default

    def keep_fact(self, name: str, value: str) -> None:
        """Keep a fact of the daemon's own."""
        with self._lock:
            self._write(("INSERT OR REPLACE INTO fact VALUES (?, ?)", (name, value)))


def _put(entry: Entry) -> tuple[str, tuple[Any, ...]]:
    return "INSERT OR REPLACE INTO entry VALUES (?, ?)", (entry.lease, msgspec.json.encode(entry))
