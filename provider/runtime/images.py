"""Images: there already, or pulled with the tenant's own login; never with the operator's.

What came from a registry is asked of the registry again, once per login: a private image that one tenant pulled is not
another's because it lies on the same disk. An image that never was in a registry is the operator's to offer by name.
"""

import base64
import json
import re
import threading
from typing import Any, Final

import docker.errors
from docker.utils import parse_repository_tag

from provider.runtime.engine import Engine, asking
from provider.runtime.port import Credentials, Image, StartFailed, Unknown

SILENCE_S: Final = 180
"""Seconds a pull may go without a word of progress; a slow one that moves is left alone."""

REFERENCE: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._/:-]{0,250}(@sha256:[0-9a-f]{64})?")
_BARE_ID = re.compile(r"(sha256:)?[0-9a-f]{12,64}")

KINDS: Final = (
    ("toomanyrequests", "the registry's pull limit is reached; pass a login"),
    ("no space left", "the host's disk is full"),
    ("no basic auth credentials", "the registry wants a login"),
    ("unauthorized", "the registry wants a login, or the image does not exist"),
    ("denied", "the registry refuses access, or the image does not exist"),
    ("manifest unknown", "there is no such image or tag"),
    ("not found", "there is no such image or tag"),
    ("no matching manifest", "the image is not made for this host's architecture"),
    ("no such host", "the registry's name is unknown"),
    ("connection refused", "the registry does not answer"),
    ("timeout", "the registry does not answer in time"),
)
"""Words of engines and registries, and what they mean for the tenant."""


def explain(text: str) -> str:
    """An engine's words on a failed pull, with what they mean in front where that is known."""
    meaning = next((meaning for words, meaning in KINDS if words in text.lower()), "")
    return f"{meaning} ({text})" if meaning else text


class Images:
    """The images of an engine."""

    def __init__(self, engine: Engine, silence_s: float = SILENCE_S) -> None:
        self._engine = engine
        self._silence_s = silence_s
        self._granted: set[tuple[str, Credentials | None]] = set()
        self._lock = threading.Lock()

    def ensure(self, reference: str, credentials: Credentials | None) -> Image:
        """As `Runtime.ensure_image`."""
        if not REFERENCE.fullmatch(reference) or _BARE_ID.fullmatch(reference):
            raise StartFailed("image_failed", f"{reference!r} is no image reference")
        found = self._inspect(reference)
        with self._lock:
            granted = (reference, credentials) in self._granted
        if found is None or (found.get("RepoDigests") and not granted):
            self._pull(reference, credentials)
            with self._lock:
                self._granted.add((reference, credentials))
            found = self._inspect(reference)
            if found is None:
                raise StartFailed("image_failed", f"{reference} was pulled but is not there: was the disk full?")
        self._check_platform(reference, found)
        return Image(digest=_digest(reference, found), id=found["Id"], reference=reference)

    def _inspect(self, reference: str) -> dict[str, Any] | None:
        api: Any = self._engine.api
        with asking():
            try:
                found: dict[str, Any] = api.inspect_image(reference)
            except docker.errors.NotFound:
                return None
        return found

    def _pull(self, reference: str, credentials: Credentials | None) -> None:
        repository, tag = parse_repository_tag(reference)
        # An empty login is sent on purpose: without the header an engine may use one of its own.
        login = {} if credentials is None else {
            "username": credentials.username, "password": credentials.password, "serveraddress": credentials.host,
        }  # fmt: skip
        header = base64.urlsafe_b64encode(json.dumps(login).encode()).decode()
        try:
            flow = self._engine.flow(
                "POST", "/images/create", {"fromImage": repository, "tag": tag or "latest"},
                headers={"X-Registry-Auth": header}, silence_s=self._silence_s, kind="image_failed",
            )  # fmt: skip
        except StartFailed as refused:
            raise StartFailed("image_failed", f"{reference}: {explain(refused.detail)}") from refused
        try:
            pending = b""
            with asking():
                while more := _read(flow.read, reference, self._silence_s):
                    *lines, pending = (pending + more).split(b"\n")
                    for line in lines:
                        _check_progress(line, reference)
                _check_progress(pending, reference)
        finally:
            flow.close()

    def _check_platform(self, reference: str, found: dict[str, Any]) -> None:
        with asking():
            host = self._engine.api.version().get("Arch", "")
        made_for = found.get("Architecture", "")
        if found.get("Os", "linux") != "linux" or (made_for and host and made_for != host):
            raise StartFailed("image_failed", f"{reference} is made for {found.get('Os')}/{made_for}, this host is linux/{host}")


def _read(read: Any, reference: str, silence_s: float) -> bytes:
    try:
        data: bytes = read()
    except TimeoutError as error:
        raise StartFailed("image_failed", f"{reference}: the pull made no progress for {silence_s:.0f} s") from error
    return data


def _check_progress(line: bytes, reference: str) -> None:
    """Refuse where a line of a pull's progress tells an error."""
    if not line.strip():
        return
    try:
        said = json.loads(line)
    except ValueError as error:
        raise Unknown(f"the engine's words on a pull are cut off: {line[:100]!r}") from error
    if isinstance(said, dict) and said.get("error"):
        raise StartFailed("image_failed", f"{reference}: {explain(str(said['error']))}")


def _digest(reference: str, found: dict[str, Any]) -> str:
    """The repository digest of the reference's own repository; the image id of an image from no registry."""
    if "@" in reference:
        return reference.partition("@")[2]
    repository, _ = parse_repository_tag(reference)
    short = repository.removeprefix("docker.io/").removeprefix("library/")
    for entry in found.get("RepoDigests") or []:
        name, _, digest = str(entry).partition("@")
        if name.removeprefix("docker.io/").removeprefix("library/") == short:
            return digest
    return str(found["Id"])
