"""Runs in a process of its own that loads the NVML stub: reads, and prints what it found as JSON."""

import json
import os
import queue
import sys
from pathlib import Path
from typing import Any

import msgspec
import pynvml

from provider.inventory.health import HealthEvent, HealthWatch
from provider.inventory.nvml import read

PATIENCE_S = 60


def once() -> Any:
    """One reading."""
    return read()


def many(folder: str) -> Any:
    """A reading of every state file in a folder: the stub opens the file named in its environment on every call."""
    found = {}
    for path in sorted(Path(folder).iterdir()):
        os.environ["NVML_STATE"] = str(path)
        found[path.name] = read()
    return found


def without_each_symbol() -> Any:
    """Readings with one function of the library missing at a time: symbol → devices found, or the exception's text."""
    real = pynvml._nvmlGetFunctionPointer
    asked: set[str] = set()

    def noting(name: str) -> Any:
        asked.add(name)
        return real(name)

    pynvml._nvmlGetFunctionPointer = noting
    read()
    found: dict[str, Any] = {}
    for symbol in sorted(asked):

        def lacking(name: str, symbol: str = symbol) -> Any:
            if name == symbol:
                raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
            return real(name)

        pynvml._nvmlGetFunctionPointer = lacking
        try:
            found[symbol] = [device.name for device in read()[0]]
        except Exception as error:
            found[symbol] = f"raised {error!r}"
    return found


def events(count: str) -> Any:
    """The first Xid events of the state file."""
    seen: queue.Queue[HealthEvent] = queue.Queue()
    with HealthWatch(seen.put):
        return [seen.get(timeout=PATIENCE_S) for _ in range(int(count))]


def main() -> None:
    """`look WHAT [ARGUMENT]`."""
    what = {"once": once, "many": many, "without": without_each_symbol, "events": events}[sys.argv[1]]
    print(json.dumps(msgspec.to_builtins(what(*sys.argv[2:]))))


if __name__ == "__main__":
    main()
