"""Xid events as they happen: what went wrong with which device, and what that means for its lease."""

import threading
from collections.abc import Callable
from enum import StrEnum
from typing import Any, Final

import msgspec
import pynvml

from provider.inventory.models import Missing
from provider.inventory.nvml import NoNvml, ask, session

WAIT_MS: Final = 1000
AGAIN_S: Final = 10.0
"""Seconds until the next try after NVML went away."""

WHOLE_GPU: Final = 0xFFFF_FFFF
XID_EVENT: Final = 0x8


class XidClass(StrEnum):
    """What an Xid asks for."""

    APPLICATION = "application"
    """The tenant's program did it: the device stays, the meter runs."""
    IGNORE = "ignore"
    RECHECK = "recheck"
    """Look at the device's memory rows when the lease ends, before it is offered again."""
    CORDON = "cordon"
    """Not offered after this lease until the operator has looked."""
    FATAL = "fatal"
    """The device is of no use now: the lease is interrupted, the meter stops at the event."""
    LINK = "link"
    """NVLink: fatal for a lease with several linked devices, a cordon for another."""
    RECOVERY = "recovery"
    """The driver wants an action: probe again, its `recovery_action` says which."""


def _numbers(text: str) -> frozenset[int]:
    """`1 3-5` → 1, 3, 4, 5."""
    found: set[int] = set()
    for word in text.split():
        first, _, last = word.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


XIDS: Final[tuple[tuple[XidClass, frozenset[int]], ...]] = (
    (XidClass.APPLICATION, _numbers("8 11 13 25 31 32 39-41 43 45 60 68-72 75-77 80 82-86 88 89 96-105 126-135 139")),
    (XidClass.IGNORE, _numbers("37 38 44 66 67 93 106 107 121 137 141 152 153 160")),
    (XidClass.RECHECK, _numbers("63 92 94 157 161")),
    (XidClass.FATAL, _numbers("46 48 54 62 64 78 79 95 109 110 119 120 136 140 142 143 151 155 156 158 159")),
    (XidClass.LINK, _numbers("74 144-150")),
    (XidClass.RECOVERY, _numbers("154")),
)
"""NVIDIA's catalogue of Xids by what it asks to do; what stands nowhere is CORDON."""


def classify(xid: int) -> XidClass:
    """What an Xid asks for; an unknown one is no reason to interrupt, but to look before the next lease."""
    for found, numbers in XIDS:
        if xid in numbers:
            return found
    return XidClass.CORDON


class HealthEvent(msgspec.Struct, frozen=True):
    """Something went wrong with a device. `gpu_instance` is set where it is one MIG slice's alone."""

    uuid: str
    xid: int
    what: XidClass
    gpu_instance: int | None = None


class HealthWatch:
    """A thread that waits for Xids and calls `on_event` for each; `on_blind(text)` when it can see none.

    A device of no known UUID, or a watch that cannot be kept, is told through `on_blind`: nothing is concluded from it.
    """

    def __init__(self, on_event: Callable[[HealthEvent], None], on_blind: Callable[[str], None] = lambda text: None) -> None:
        self._on_event = on_event
        self._on_blind = on_blind
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="gpu-health", daemon=True)

    def __enter__(self) -> "HealthWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                with session():
                    self._watch()
            except NoNvml as error:
                self._on_blind(str(error))
            self._stop.wait(AGAIN_S)

    def _watch(self) -> None:
        """One session's events, until the watch is to end or NVML fails."""
        events = ask(pynvml.nvmlEventSetCreate)
        if isinstance(events, Missing):
            self._on_blind(f"no events: {events.missing}")
            return
        try:
            self._register(events)
            while not self._stop.is_set():
                try:
                    event = pynvml.nvmlEventSetWait_v2(events, WAIT_MS)
                except pynvml.NVMLError as error:
                    if getattr(error, "value", 0) == pynvml.NVML_ERROR_TIMEOUT:
                        continue
                    self._on_blind(f"waiting for events failed: {error}")
                    return
                self._tell(event)
        finally:
            ask(pynvml.nvmlEventSetFree, events)

    def _register(self, events: Any) -> None:
        count = ask(pynvml.nvmlDeviceGetCount)
        for index in range(count if isinstance(count, int) else 0):
            handle = ask(pynvml.nvmlDeviceGetHandleByIndex, index)
            supported = handle if isinstance(handle, Missing) else ask(pynvml.nvmlDeviceGetSupportedEventTypes, handle)
            failed: Any = supported
            if isinstance(supported, int):
                failed = ask(pynvml.nvmlDeviceRegisterEvents, handle, XID_EVENT & supported, events)
            if isinstance(failed, Missing):
                self._on_blind(f"device {index} is not watched: {failed.missing}")

    def _tell(self, event: Any) -> None:
        if not int(event.eventType) & XID_EVENT:
            return
        uuid = ask(pynvml.nvmlDeviceGetUUID, event.device)
        if not isinstance(uuid, str):
            self._on_blind(f"Xid {int(event.eventData)} of a device that does not tell its UUID")
            return
        instance = int(event.gpuInstanceId)
        xid = int(event.eventData)
        self._on_event(HealthEvent(uuid, xid, classify(xid), None if instance == WHOLE_GPU else instance))
