"""Deployments that this home knows: the manifest is kept here, since the ledger has only its hash."""

import contextlib
import os
import secrets
from pathlib import Path

import msgspec

from tenant.deploy.failure import DeployFailed


class Kept(msgspec.Struct, frozen=True):
    """What is needed to send a manifest again."""

    owner: str
    dseq: int
    hash: str
    manifest: list[dict[str, object]]


class Shelf:
    """A folder with one file a deployment, readable by its owner alone: manifests may hold secrets."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, owner: str, dseq: int) -> Path:
        """The file of a deployment."""
        return self.folder / f"{owner}-{dseq}.json"

    def put(self, kept: Kept) -> None:
        """Store durably, replacing an earlier manifest of the same deployment; DeployFailed where it cannot be written."""
        self._put(self.path(kept.owner, kept.dseq), kept)

    def propose(self, kept: Kept) -> None:
        """Store beside the manifest of a deployment the one that it is to have; DeployFailed where it cannot be written."""
        self._put(self._proposed(kept.owner, kept.dseq), kept)

    def proposed(self, owner: str, dseq: int) -> Kept | None:
        """The manifest that a deployment is to have, where an update of it is under way."""
        return self._read(self._proposed(owner, dseq), dseq)

    def adopt(self, kept: Kept) -> None:
        """What was proposed is what the deployment has from now on."""
        self.put(kept)
        self.withdraw(kept.owner, kept.dseq)

    def withdraw(self, owner: str, dseq: int) -> None:
        """The deployment keeps what it has."""
        self._proposed(owner, dseq).unlink(missing_ok=True)

    def _proposed(self, owner: str, dseq: int) -> Path:
        return self.folder / f"{owner}-{dseq}.proposed.json"

    def _put(self, path: Path, kept: Kept) -> None:
        # Threads and processes may keep the same deployment at once: each has a draft of its own.
        draft = path.with_suffix(f".{secrets.token_hex(8)}.new")
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(draft, msgspec.json.encode(kept))
            draft.rename(path)
            _sync(self.folder)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            fix = f"make room, or let {self.folder} be written, and try again: nothing was sent"
            raise DeployFailed(f"the manifest cannot be kept: {error}", fix=fix) from None

    def find(self, owner: str, dseq: int) -> Kept | None:
        """What is kept of a deployment, or None; DeployFailed where the file is damaged or cannot be read."""
        return self._read(self.path(owner, dseq), dseq)

    def _read(self, path: Path, dseq: int) -> Kept | None:
        try:
            return msgspec.json.decode(path.read_bytes(), type=Kept)
        except FileNotFoundError:
            return None
        except (msgspec.MsgspecError, OSError) as error:
            raise DeployFailed(
                f"the kept manifest of deployment {dseq} cannot be read: {error}",
                fix=f"name the file: gpubid lease manifest {dseq} --file app.yaml",
            ) from None

    def get(self, owner: str, dseq: int) -> Kept:
        """What is kept of a deployment; DeployFailed where nothing is, or where the file is damaged."""
        kept = self.find(owner, dseq)
        if kept is None:
            fix = f"send it from the machine that deployed it, or name the file: gpubid lease manifest {dseq} --file app.yaml"
            raise DeployFailed(f"the manifest of deployment {dseq} is not in this home", fix=fix, exit_code=3)
        return kept

    def drop(self, owner: str, dseq: int) -> None:
        """Forget a deployment that is over."""
        self.withdraw(owner, dseq)
        self.path(owner, dseq).unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    """A new file with mode 0600, on disk when this returns."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
