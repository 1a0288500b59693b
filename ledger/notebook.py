"""What a client remembers of nodes: which key each has, and what they signed. Later it convicts one that lied.

`known_nodes` in the home has a line `URL CHAIN KEY` for each node and chain met, as ssh has for hosts: the key of the
first meeting counts until the user accepts another. `receipts/CHAIN.jsonl` has a signed receipt or checkpoint a line,
the oldest in `CHAIN.4.jsonl`; beyond that they are dropped.
"""

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from ledger.protocol.block import Receipt
from ledger.protocol.encoding import encode
from ledger.protocol.errors import Rejected
from ledger.protocol.receipts import SignedReceipt, Statement, decode_statement, is_signed

FILE_BYTES: Final = 2 * 2**20
"""Size of a file of statements (about 3,000) beyond which a new one is begun."""

OLD_FILES: Final = 4

_CHAIN: Final = re.compile(r"[a-z0-9][a-z0-9-]{1,46}")
_KEY: Final = re.compile(r"[0-9a-f]{64}")


class NotebookError(Exception):
    """What is kept cannot be read or written; `fix` says what to do."""

    exit_code = 1

    def __init__(self, message: str, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


class NodeKeyChanged(Exception):
    """A node has another key than at the first meeting: it is another node, or its operator lost the key."""

    exit_code = 4

    def __init__(self, url: str, chain_id: str, known: str, found: str) -> None:
        super().__init__(
            f"the node {url} of chain {chain_id} signs with another key than when it was first met: {found}, not {known}"
        )
        self.fix = f"ask its operator which key is right; only then accept the new one: gpubid node trust {found} --node {url}"


class ReceiptRefused(Exception):
    """A node's answer about a transaction is not a good signed receipt: it proves nothing, and the node is not to be trusted."""

    exit_code = 1

    def __init__(self, id: str, why: str) -> None:
        super().__init__(f"the node's receipt for transaction {id} is not good: {why}")
        self.fix = "do not rely on this node's answer; ask another node of the chain for the transaction's id"


class KnownNode(msgspec.Struct, frozen=True):
    """The key (hex) that is accepted for a node of a chain."""

    url: str
    chain_id: str
    key: str


class Notebook:
    """The notebook in a user's home. `tell` gets a line when a node is met for the first time."""

    def __init__(self, home: Path, tell: Callable[[str], None] = lambda _line: None) -> None:
        self._known = home / "known_nodes"
        self._folder = home / "receipts"
        self._tell = tell

    # Keys of nodes.

    def nodes(self) -> list[KnownNode]:
        """Every node and chain met, by URL. NotebookError where the file is damaged, or others may write to it."""
        try:
            text = self._known.read_text()
            mode = self._known.stat().st_mode
        except FileNotFoundError:
            return []
        except (OSError, UnicodeDecodeError) as error:
            raise NotebookError(f"{self._known} cannot be read: {error}") from None
        if mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise NotebookError(f"{self._known} can be written by others", f"chmod 600 {self._known}")
        found = []
        for line in text.splitlines():
            parts = line.split(" ")
            if len(parts) != 3 or not _CHAIN.fullmatch(parts[1]) or not _KEY.fullmatch(parts[2]):
                raise NotebookError(f"{self._known} is damaged at {line[:80]!r}", "mend or remove that line")
            found.append(KnownNode(*parts))
        return found

    def key_of(self, url: str, chain_id: str) -> str | None:
        """The accepted key of a node, or None where it was never met."""
        url = _plain(url)
        return next((node.key for node in self.nodes() if (node.url, node.chain_id) == (url, chain_id)), None)

    def meet(self, url: str, chain_id: str, key: str) -> None:
        """Accept the key of a node that is met for the first time; NodeKeyChanged where another one is known."""
        known = self.key_of(url, chain_id)
        if known is None:
            self.trust(url, chain_id, key)
            self._tell(f"first meeting with {_plain(url)} of chain {chain_id}: its key {key} is remembered")
        elif known != key:
            raise NodeKeyChanged(_plain(url), chain_id, known, key)

    def trust(self, url: str, chain_id: str, key: str) -> None:
        """Accept `key` for a node from now on. NotebookError where chain or key are not well formed."""
        if not _CHAIN.fullmatch(chain_id) or not _KEY.fullmatch(key):
            raise NotebookError(f"{_plain(url)} does not say what its chain or its key is", "is it a node?")
        new = KnownNode(_plain(url), chain_id, key)
        with self._locked():
            others = [node for node in self.nodes() if (node.url, node.chain_id) != (new.url, new.chain_id)]
            lines = [f"{node.url} {node.chain_id} {node.key}\n" for node in sorted([*others, new], key=lambda n: n.url)]
            beside = self._known.with_name("known_nodes.new")
            _write(beside, "".join(lines).encode(), os.O_TRUNC)
            beside.rename(self._known)

    # What they signed.

    def keep(self, statement: Statement) -> None:
        """Write down a statement whose signature was found good, durably."""
        chain_id = statement.said.chain_id
        assert _CHAIN.fullmatch(chain_id), "a decoded statement names a chain"
        with self._locked():
            path = self._file(chain_id)
            if path.exists() and path.stat().st_size > FILE_BYTES:
                for number in range(OLD_FILES, 0, -1):
                    older = self._file(chain_id, number - 1)
                    if older.exists():
                        older.rename(self._file(chain_id, number))
            # A line that a crash cut short must not take this one with it.
            begin = b"\n" if _is_cut(path) else b""
            _write(path, begin + encode(statement) + b"\n", os.O_APPEND)

    def statements(self, chain_id: str) -> tuple[list[Statement], int]:
        """What is kept of a chain, oldest first, each found to be signed; and how many lines are not."""
        if not _CHAIN.fullmatch(chain_id):
            return [], 0
        found: dict[Statement, None] = {}
        bad = 0
        for number in range(OLD_FILES, -1, -1):
            for line in read_lines(self._file(chain_id, number)):
                try:
                    found[decode_statement(line)] = None
                except Rejected:
                    bad += 1
        return list(found), bad

    def find(self, id: str) -> SignedReceipt | None:
        """The newest kept receipt of a transaction, or None."""
        for chain_id in self.chains():
            for statement in reversed(self.statements(chain_id)[0]):
                if isinstance(statement, SignedReceipt) and statement.receipt.id == id:
                    return statement
        return None

    def chains(self) -> list[str]:
        """Every chain of which something is kept."""
        names = {path.name.split(".")[0] for path in self._folder.glob("*.jsonl")}
        return sorted(name for name in names if _CHAIN.fullmatch(name))

    def _file(self, chain_id: str, number: int = 0) -> Path:
        return self._folder / (f"{chain_id}.{number}.jsonl" if number else f"{chain_id}.jsonl")

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """One process at a time writes in the notebook."""
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise NotebookError(f"{self._folder} cannot be written: {error.strerror}") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        except OSError as error:
            raise NotebookError(f"what the node signed cannot be kept in {self._folder}: {error.strerror}") from None
        finally:
            os.close(descriptor)


def check_receipt(signed: SignedReceipt, id: str, receipt: Receipt, chain_id: str, key: str) -> None:
    """ReceiptRefused unless `signed` says under `key` what `receipt` says of transaction `id` of that chain."""
    said = signed.receipt
    if signed.node_key != key:
        raise ReceiptRefused(id, f"it is signed by {signed.node_key}, the node's key is {key}")
    if (said.id, said.chain_id) != (id, chain_id):
        raise ReceiptRefused(id, f"it is about {said.id} of chain {said.chain_id}")
    if (receipt.id, receipt.height, receipt.index, receipt.code) != (id, said.height, said.index, said.code):
        raise ReceiptRefused(id, "what is signed is not what is said beside it")
    if not is_signed(signed):
        raise ReceiptRefused(id, "the signature does not match")


def statement_in(found: object) -> Statement:
    """The signed statement in a decoded answer of a node: alone, or beside a receipt or a proof. Rejected where it is none."""
    body = found.get("signed", found) if isinstance(found, dict) else {}
    body = body if isinstance(body, dict) else {}
    kinds = [kind for kind in ("receipt", "checkpoint") if kind in body]
    return decode_statement(encode({name: body[name] for name in (*kinds[:1], "node_key", "signature") if name in body}))


def read_lines(path: Path) -> list[bytes]:
    """Lines of a file that are not empty; none where there is no such file."""
    try:
        return [line for line in path.read_bytes().splitlines() if line.strip()]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise NotebookError(f"{path} cannot be read: {error.strerror}") from None


def _plain(url: str) -> str:
    """One spelling of a node's URL."""
    parts = urlsplit(url)
    place = parts.netloc.rpartition("@")[2].lower()  # a name and password for a proxy are no part of who it is
    return f"{parts.scheme.lower()}://{place}{parts.path.rstrip('/')}".replace(" ", "%20")


def _is_cut(path: Path) -> bool:
    """True where a file does not end with its line."""
    try:
        with path.open("rb") as file:
            return file.seek(0, os.SEEK_END) > 0 and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
    except FileNotFoundError:
        return False


def _write(path: Path, data: bytes, how: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | how, 0o600)
    with os.fdopen(descriptor, "wb") as out:
        out.write(data)
        out.flush()
        os.fsync(out.fileno())
