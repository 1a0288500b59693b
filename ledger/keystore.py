"""Encrypted keys in files: Argon2id and ChaCha20-Poly1305, one JSON file a key, mode 0600 and checked.

The header (name, address, public key, parameters) is bound to the ciphertext as associated data, so that no part
of the file can be changed unseen. A key without a passphrase is for machines: its seed stands in the file, which
says so.
"""

import contextlib
import os
import re
import resource
import secrets
import stat
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from ledger.protocol import keys
from ledger.protocol.encoding import encode

NAME: Final = re.compile(r"^[a-z0-9][a-z0-9_-]{0,31}$")
ARGON2: Final = {"lanes": 4, "memory_kib": 65_536, "time": 3}
_LIMITS: Final = {"lanes": 16, "memory_kib": 1_048_576, "time": 16}
"""A file that asks for more is refused: it would only keep its owner waiting."""


class KeystoreError(Exception):
    """A key cannot be read, made or opened; `fix` says what to do."""

    def __init__(self, message: str, *, fix: str = "", exit_code: int = 1) -> None:
        super().__init__(message)
        self.fix = fix
        self.exit_code = exit_code


class KeyInfo(msgspec.Struct, frozen=True):
    """What may be shown of a key."""

    name: str
    address: str
    """Account that it acts for: its own, unless it was given another (`act_for`)."""
    key_hex: str
    encrypted: bool


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    version: int
    name: str
    address: str
    key: str
    kdf: str
    kdf_parameters: dict[str, int]
    salt: str
    cipher: str
    nonce: str
    ciphertext: str

    def header(self) -> bytes:
        """The bytes that the ciphertext is bound to: everything but itself."""
        return encode({name: getattr(self, name) for name in self.__struct_fields__ if name != "ciphertext"})


class Keystore:
    """The keys in a folder, made with mode 0700 where it is missing."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def add(self, name: str, *, seed: bytes | None = None, passphrase: str | None) -> KeyInfo:
        """Make a key (from `seed`, 32 bytes, or at random) under `name`; an existing one is never replaced."""
        if not NAME.match(name):
            raise KeystoreError(f"{name!r} is not a name for a key", fix="use a-z, 0-9, - and _, at most 32", exit_code=2)
        path = self._path(name)
        if path.exists():
            raise KeystoreError(f"a key named {name!r} exists", fix="choose another name", exit_code=5)
        seed = secrets.token_bytes(32) if seed is None else seed
        self._write(path, _seal(name, seed, passphrase), replace=False)
        return self.info(name)

    def replace_passphrase(self, name: str, seed: bytes, passphrase: str) -> None:
        """Keep the key `name`, whose seed is `seed`, under another passphrase; the old file is replaced whole."""
        old = self._read(name)
        if keys.public_key(seed).hex() != old.key:
            raise KeystoreError(f"that is not the seed of key {name!r}")
        self._write(self._path(name), _seal(name, seed, passphrase, old.address), replace=True)

    def act_for(self, name: str, passphrase: str | None, address: str) -> KeyInfo:
        """Let the key `name` act for the account `address` from now on: it was delegated to, or rotated to this key."""
        seed = self.unlock(name, passphrase)
        sealed = _seal(name, seed, passphrase if self.info(name).encrypted else None, address)
        self._write(self._path(name), sealed, replace=True)
        return self.info(name)

    def list(self) -> list[KeyInfo]:
        """All keys by name; files that are not keys are left out."""
        if not self.folder.is_dir():
            return []
        return [self.info(path.stem) for path in sorted(self.folder.glob("*.json")) if NAME.match(path.stem)]

    def info(self, name: str) -> KeyInfo:
        """What may be shown of the key named `name`."""
        file = self._read(name)
        return KeyInfo(name=file.name, address=file.address, key_hex=file.key, encrypted=file.kdf != "none")

    def unlock(self, name: str, passphrase: str | None) -> bytes:
        """Return the seed (32 bytes); KeystoreError where the passphrase is wrong or the file was changed.

        The process leaves no core file from here on: one would hold the seed.
        """
        file = self._read(name)
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if file.kdf == "none":
            seed = bytes.fromhex(file.ciphertext)
        elif passphrase is None:
            raise KeystoreError(f"key {name!r} needs its passphrase", exit_code=4)
        else:
            try:
                seed = _cipher(file, passphrase).decrypt(bytes.fromhex(file.nonce), bytes.fromhex(file.ciphertext), file.header())
            except InvalidTag:
                raise KeystoreError(f"the passphrase of key {name!r} is wrong, or its file was changed", exit_code=4) from None
        if len(seed) != 32 or keys.public_key(seed).hex() != file.key:
            raise KeystoreError(f"the file of key {name!r} was changed: its seed is not that of its public key")
        return seed

    def delete(self, name: str) -> None:
        """Remove the file of a key for good."""
        self._read(name)
        self._path(name).unlink()

    def _path(self, name: str) -> Path:
        return self.folder / f"{name}.json"

    def _read(self, name: str) -> _File:
        path = self._path(name)
        try:
            mode = path.stat().st_mode
            raw = path.read_bytes()
        except FileNotFoundError:
            fix = f"make one: gpubid keys add {name}" if NAME.match(name) else "list them: gpubid keys list"
            raise KeystoreError(f"there is no key named {name!r}", fix=fix, exit_code=3) from None
        if mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise KeystoreError(f"{path} can be read by others (mode {mode & 0o777:o})", fix=f"chmod 600 {path}")
        try:
            file = msgspec.json.decode(raw, type=_File)
            for field in ("salt", "nonce", "ciphertext", "key"):
                bytes.fromhex(getattr(file, field))
        except (msgspec.MsgspecError, ValueError) as error:
            raise KeystoreError(f"{path} is not a key file: {error}", fix="restore it from a backup") from None
        known = (file.kdf, file.cipher) in (("none", "none"), ("argon2id", "chacha20-poly1305"))
        within = all(1 <= file.kdf_parameters.get(k, 0) <= limit for k, limit in _LIMITS.items()) or file.kdf == "none"
        nonce_fits = file.kdf == "none" or len(file.nonce) == 24
        if file.version != 1 or not known or not within or not nonce_fits or file.name != name:
            raise KeystoreError(f"{path} is not a key file of a kind that is known here")
        return file

    def _write(self, path: Path, file: _File, *, replace: bool) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_suffix(f".{secrets.token_hex(4)}.new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n")
                out.flush()
                os.fsync(out.fileno())
            if replace:
                draft.rename(path)
            else:
                os.link(draft, path)  # unlike a rename, it never replaces a key that came in between
        except FileExistsError:
            raise KeystoreError(f"a key named {file.name!r} exists", fix="choose another name", exit_code=5) from None
        except OSError as error:
            raise KeystoreError(f"the key cannot be written to {self.folder}: {error.strerror}") from None
        finally:
            with contextlib.suppress(OSError):
                draft.unlink()


def _seal(name: str, seed: bytes, passphrase: str | None, address: str = "") -> _File:
    """The file of a key, sealed under a passphrase, or plain without one; it acts for its own account without `address`."""
    assert len(seed) == 32, "a seed has 32 bytes"
    public = keys.public_key(seed)
    draft = _File(
        version=1,
        name=name,
        address=address or keys.address_of(public),
        key=public.hex(),
        kdf="none" if passphrase is None else "argon2id",
        kdf_parameters={} if passphrase is None else ARGON2,
        salt="" if passphrase is None else secrets.token_hex(16),
        cipher="none" if passphrase is None else "chacha20-poly1305",
        nonce="" if passphrase is None else secrets.token_hex(12),
        ciphertext="",
    )
    sealed = seed
    if passphrase is not None:
        sealed = _cipher(draft, passphrase).encrypt(bytes.fromhex(draft.nonce), seed, draft.header())
    return msgspec.structs.replace(draft, ciphertext=sealed.hex())


def _cipher(file: _File, passphrase: str) -> ChaCha20Poly1305:
    p = file.kdf_parameters
    kdf = Argon2id(salt=bytes.fromhex(file.salt), length=32, iterations=p["time"], lanes=p["lanes"], memory_cost=p["memory_kib"])
    return ChaCha20Poly1305(kdf.derive(passphrase.encode()))
