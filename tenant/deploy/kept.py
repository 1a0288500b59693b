"""Deployments that this home knows: the manifest is kept here, since the ledger has only its hash."""

import os
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

    def _path(self, owner: str, dseq: int) -> Path:
        return self.folder / f"{owner}-{dseq}.json"

    def put(self, kept: Kept) -> None:
        """Store durably, replacing an earlier manifest of the same deployment."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self._path(kept.owner, kept.dseq)
        draft = path.with_suffix(".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as out:
            out.write(msgspec.json.encode(kept))
            out.flush()
            os.fsync(out.fileno())
        draft.rename(path)

    def get(self, owner: str, dseq: int) -> Kept:
        """What is kept of a deployment; DeployFailed where nothing is, or where the file is damaged."""
        try:
            return msgspec.json.decode(self._path(owner, dseq).read_bytes(), type=Kept)
        except FileNotFoundError:
            fix = "send it from the machine that deployed it, or name the file: gpubid lease manifest DSEQ --file app.yaml"
            raise DeployFailed(f"the manifest of deployment {dseq} is not in this home", fix=fix, exit_code=3) from None
        except msgspec.MsgspecError as error:
            raise DeployFailed(
                f"the kept manifest of deployment {dseq} is damaged: {error}", fix="name the file with --file"
            ) from None

    def drop(self, owner: str, dseq: int) -> None:
        """Forget a deployment that is over."""
        self._path(owner, dseq).unlink(missing_ok=True)
