"""Bits that flip in a stored chain: each must be found or be harmless.

`python -m tests.crash.flips --count 100000` for the record. A small chain is made once; for every flip its files are
put in place anew, one bit is turned, and the chain is opened (or its export verified). Found means that opening is
refused; harmless that head and root are the committed ones. Anything else is a failure.
"""

import argparse
import contextlib
import random
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import structlog

from ledger.engine.checkpoint import open_machine
from ledger.engine.embedded import Engine
from ledger.engine.errors import LedgerDamaged, LedgerMissing, LedgerUnavailable
from ledger.engine.export import VerifyFailed, verify_export
from ledger.engine.log import Log
from ledger.protocol.block import Header
from tests.ledger.engine.ledgers import send, shards_often, transfer
from tests.ledger.machine.chain import genesis

FILES = ("chain.db", "export")


class Chain:
    """A chain of some blocks as files, some of its shards a few blocks behind its head."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder}/chain.db"
        self.files: dict[str, bytes] = {}
        self.head: Header = self._make()

    def _make(self) -> Header:
        engine = Engine.open(self.url, genesis(), [])
        for _ in range(6):
            send(engine, transfer(engine))
        with shards_often():
            send(engine, transfer(engine))
        for future in engine.submit_many([transfer(engine) for _ in range(20)]):
            future.result(60)
        for _ in range(3):
            send(engine, transfer(engine))
        engine.export(self.folder / "export")
        head = engine.head
        engine.close()
        self.files = {name: (self.folder / name).read_bytes() for name in FILES}
        return head

    def put(self, name: str, at: int, bit: int) -> None:
        """Put every file in place anew, one of them with a bit turned."""
        for path in self.folder.iterdir():
            if path.name not in FILES:
                path.unlink()
        for other, data in self.files.items():
            if other == name:
                turned = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
                (self.folder / other).write_bytes(turned)
            else:
                (self.folder / other).write_bytes(data)

    def outcome(self, name: str) -> str:
        """`found`, or `harmless`; AssertionError where another state comes out."""
        try:
            if name == "export":
                report = verify_export(self.folder / name, [])
                found = (report.height, report.hash, report.state_root)
            else:
                log = Log(self.url)
                try:
                    head = open_machine(log, None, []).head
                finally:
                    log.close()
                found = (head.height, head.hash, head.state_root)
        except (LedgerDamaged, LedgerMissing, LedgerUnavailable, VerifyFailed):
            return "found"
        assert found == (self.head.height, self.head.hash, self.head.state_root), f"another state: {found}"
        return "harmless"


@contextlib.contextmanager
def a_chain() -> Iterator[Chain]:
    """A chain in memory, where there is such a place: this is about bits, not about the disk."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Chain(Path(folder))


def flips_found(chain: Chain, count: int, seed: int, names: Sequence[str] = FILES) -> "Counter[str]":
    """Turn `count` bits, spread evenly over the files; how many were found and how many harmless."""
    chance = random.Random(seed)
    tally: Counter[str] = Counter()
    for number in range(count):
        name = names[number % len(names)]
        at, bit = chance.randrange(len(chain.files[name])), chance.randrange(8)
        chain.put(name, at, bit)
        try:
            tally[chain.outcome(name)] += 1
        except BaseException:
            print(f"flip {number} of seed {seed}: {name} byte {at} bit {bit}", flush=True)
            raise
    return tally


def main() -> None:
    """Turn many bits and print the tally."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    with a_chain() as chain:
        for name in FILES:
            tally = flips_found(chain, options.count // len(FILES), options.seed, (name,))
            print(f"{name}: {len(chain.files[name])} bytes, {dict(tally)}", flush=True)
    print("every flip was found or harmless")


if __name__ == "__main__":
    main()
