"""The folder of a node: its lock, its keys, its genesis."""

import fcntl
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import Final

import msgspec

from ledger.cli.failure import CommandFailed, Exit
from ledger.keystore import Keystore
from ledger.protocol.encoding import encode
from ledger.protocol.genesis import Allocation, DenominationSpec, Genesis
from ledger.protocol.keys import address_of, public_key

DEV_DENOMINATION: Final = "ucredit"
DEV_ALLOCATION: Final = 10**15
"""Micro-units that the faucet's account has from the start: a billion credits."""

DEV_LIMITS: Final = MappingProxyType(
    {
        "bucket_first": 2_000,
        "bucket_floor": 2_000,
        "bucket_floor_per_min": 12_000,
        "bucket_opening": 0,
    }
)
"""Where money is free, what an account holds says nothing: all may send 2,000 at once and 200 a second, new ones too."""

_RESTORE: Final = "restore it from a backup: it is what /v1/genesis of this node answered, byte for byte"


@contextmanager
def locked(home: Path) -> Iterator[None]:
    """Hold the home for one process; CommandFailed names the one that has it. The kernel lets go when a process dies."""
    path = home / "lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.read(descriptor, 32).decode(errors="replace").strip()
            raise CommandFailed(
                f"a node runs on {home} already, as process {holder or 'unknown'}",
                Exit.CONFLICT,
                fix=f"stop it (kill {holder}), or give this one another GPUBID_HOME" if holder else "stop it first",
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def seed_of(home: Path, name: str, *, make: bool) -> bytes | None:
    """Seed (32 bytes) of a key in the node's own keystore, made where it is missing and `make`; None without."""
    store = Keystore(home / "keys")
    if not (home / "keys" / f"{name}.json").exists():
        if not make:
            return None
        store.add(name, passphrase=None)
    return store.unlock(name, None)


def read_genesis(home: Path) -> Genesis | None:
    """The genesis in the home; None where there is none yet."""
    path = home / "genesis.json"
    try:
        return msgspec.json.decode(path.read_bytes(), type=Genesis)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, UnicodeError) as error:
        raise CommandFailed(f"{path} is no genesis: {error}", Exit.FAILURE, fix=_RESTORE) from None


def write_genesis(home: Path, genesis: Genesis) -> None:
    """Write the genesis whole or not at all; CommandFailed where there is one already."""
    path = home / "genesis.json"
    if path.exists():
        raise CommandFailed(f"{path} exists: this home has a chain", Exit.CONFLICT, fix="give another GPUBID_HOME")
    beside = home / f"genesis.{secrets.token_hex(4)}"
    with beside.open("wb") as file:
        file.write(encode(genesis))
        file.flush()
        os.fsync(file.fileno())
    beside.rename(path)
    _sync(home)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def has_begun(home: Path) -> bool:
    """True where a node has served the chain of this home: its database must hold it from then on."""
    return (home / "begun").exists()


def mark_begun(home: Path) -> None:
    """Note that the chain of this home is in its database, before anything is acknowledged."""
    if not has_begun(home):
        (home / "begun").touch(mode=0o600)
        _sync(home)


def lost(home: Path, what: str) -> CommandFailed:
    """What to say where a chain that had begun is not there: a new one of its name would contradict what was signed."""
    fix = f"restore {what} from a backup, or name the --database of before; another GPUBID_HOME begins another chain"
    return CommandFailed(f"the chain of {home} had begun, but {what} is gone", Exit.FAILURE, fix=fix)


def development_genesis(home: Path) -> Genesis:
    """A new development chain: its faucet's key issues the money and governs."""
    seed = seed_of(home, "faucet", make=True)
    assert seed is not None
    issuer = address_of(public_key(seed))
    return Genesis(
        chain_id=f"gpubid-dev-{secrets.token_hex(4)}",
        denominations=(DenominationSpec(issuer=issuer, name=DEV_DENOMINATION),),
        governance=issuer,
        time_ms=time.time_ns() // 1_000_000,
        allocations=(Allocation(address=issuer, amount=str(DEV_ALLOCATION), denomination=DEV_DENOMINATION),),
        dev=True,
        parameters=dict(DEV_LIMITS),
    )
