"""Carries out what the plan says, one action at a time for each lease; every action may be repeated.

Expected failures end in the journal (error, count, when to try again), for the plan to see. `Unknown` and
`LedgerUnreachable` change nothing but that time.
"""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Final

import msgspec
import structlog

from ledger.protocol.errors import Rejected
from marketplace.protocol.errors import MarketCode
from marketplace.protocol.messages import CloseLease, Release, ReportActive, ReportDown, ReportPulling, ReportUp
from marketplace.protocol.records import LeaseState
from provider.leases.journal import Journal, JournalFailed, Manifest
from provider.leases.ledger import Ledger, LedgerUnreachable
from provider.leases.manifest import ManifestGroup, Service, container_spec, deal, group_named, port_key
from provider.leases.model import (
    Action,
    Close,
    Entry,
    Forget,
    Phase,
    Remove,
    RemoveStale,
    Report,
    Slot,
    Start,
    Stop,
    Wanted,
    slot_of,
)
from provider.leases.plan import Policy, backoff_ms
from provider.runtime.port import Container, ContainerSpec, Image, Runtime, StartFailed, Unknown

STARTS: Final = 4
"""Containers that are being started at one time."""

RETRY_MS: Final = 2_000
"""Wait after an action that the engine or the ledger did not answer."""

PORT_TRIES: Final = 5

LOG_LINES: Final = 5

log = structlog.get_logger("provider.leases")


class DeviceMissing(Exception):
    """A device of the lease is not on the host now."""


class Executor:
    """`devices` gives the host's devices now: id on the ledger → UUID. `publish_ip` is where published ports listen."""

    def __init__(
        self,
        runtime: Runtime,
        journal: Journal,
        ledger: Ledger,
        *,
        devices: Callable[[], Mapping[str, str]],
        publish_ip: str = "127.0.0.1",
        policy: Policy = Policy(),  # noqa: B008  (frozen)
    ) -> None:
        self.runtime = runtime
        self.journal = journal
        self.ledger = ledger
        self.devices = devices
        self.publish_ip = publish_ip
        self.policy = policy
        self._starts = ThreadPoolExecutor(STARTS, thread_name_prefix="start")
        self._prepares = ThreadPoolExecutor(STARTS, thread_name_prefix="prepare")
        self._groups: dict[tuple[str, str], ManifestGroup] = {}
        self._lock = threading.Lock()

    def close(self, *, wait: bool = True) -> None:
        """Begin nothing more; with `wait`, wait for starts under way."""
        self._starts.shutdown(wait=wait, cancel_futures=True)
        self._prepares.shutdown(wait=wait, cancel_futures=True)

    def run(self, action: Action) -> None:
        """Do it. Nothing but JournalFailed and broken assertions leave it: one odd lease must not end the daemon."""
        lease = action.lease
        try:
            self._do(action)
        except Unknown as error:
            self._later(lease, f"the container engine does not answer: {error}")
        except LedgerUnreachable as error:
            self._later(lease, f"the ledger does not answer: {error}")
        except StartFailed as error:
            self._failed(lease, error)
        except DeviceMissing as error:
            self._failed(lease, StartFailed("start_failed", str(error)))
        except Rejected as error:
            self._refused(action, error)
        except (AssertionError, JournalFailed):
            raise
        except Exception as error:
            log.exception("an action failed unexpectedly", lease=lease, action=type(action).__name__)
            if isinstance(action, Start):
                self._failed(lease, StartFailed("start_failed", f"the provider cannot start this: {type(error).__name__}"))
            else:
                self._later(lease, repr(error))

    def group(self, lease: str) -> ManifestGroup | None:
        """What the lease runs, decoded once for each manifest."""
        manifest = self.journal.manifest(lease)
        if manifest is None:
            return None
        key = (lease, manifest.spec)
        with self._lock:
            found = self._groups.get(key)
            if found is None:
                found = self._groups[key] = group_named(msgspec.json.decode(manifest.body), manifest.group)
        return found

    def _do(self, action: Action) -> None:
        match action:
            case Start():
                self._start(action)
            case Stop(lease=lease, why=why):
                self.runtime.stop(lease)
                log.info("stopped", lease=lease, why=why)
            case Remove(lease=lease, why=why):
                self.runtime.remove(lease)
                log.info("removed", lease=lease, why=why)
            case RemoveStale(lease=lease, keep_generation=keep):
                if not keep:
                    self._ready_images(lease)
                self.runtime.remove(lease, keep_generation=keep)
                log.info("removed stale containers", lease=lease, keep_generation=keep)
            case Report():
                self._report(action)
            case Close():
                self._close(action)
            case Forget(lease=lease):
                self.journal.forget(lease)
                with self._lock:
                    self._groups = {key: group for key, group in self._groups.items() if key[0] != lease}
            case _:
                raise AssertionError(f"{action} is not for the executor")

    def _later(self, lease: str, why: str) -> None:
        log.warning("try again later", lease=lease, why=why)
        self.journal.change(lease, durable=False, next_try_ms=self.ledger.now_ms() + RETRY_MS)

    def _failed(self, lease: str, error: StartFailed) -> None:
        entry = self.journal.get(lease)
        if entry is None:
            return
        failures = entry.failures + 1
        kind = "image_failed" if error.kind == "image_failed" else "start_failed"
        log.warning("start failed", lease=lease, kind=kind, failures=failures, detail=error.detail)
        self.journal.change(
            lease,
            failures=failures,
            failure_kind=kind,
            error=error.detail[:400],
            phase=Phase.STARTING,
            next_try_ms=self.ledger.now_ms() + backoff_ms(failures, self.policy),
        )

    def _refused(self, action: Action, error: Rejected) -> None:
        """The ledger refused a report: the lease has moved on, or is gone; the next answer about it says which."""
        gone = error.code == MarketCode.LEASE_NOT_FOUND
        log.warning(
            "the ledger refused", lease=action.lease, action=type(action).__name__, code=int(error.code), detail=error.detail
        )
        wanted = None
        if not gone:
            with contextlib.suppress(LedgerUnreachable):
                wanted = self.ledger.lease(action.lease)
        entry = self.journal.get(action.lease)
        if entry is not None:
            now_ms = self.ledger.now_ms()
            self.journal.change(action.lease, wanted=wanted or entry.wanted, next_try_ms=now_ms + RETRY_MS)

    # Starting

    def _start(self, action: Start) -> None:
        manifest, group = self.journal.manifest(action.lease), self.group(action.lease)
        entry = self.journal.get(action.lease)
        if manifest is None or group is None or entry is None or manifest.spec != action.spec:
            return  # closed or updated meanwhile: the plan is asked again
        network = self._prepares.submit(self.runtime.ensure_network, action.lease)
        try:
            with self._telling_of_pull(action, entry.wanted):
                images = self._images(group)
        finally:
            network.result()
        self.journal.change(action.lease, durable=False, phase=Phase.STARTING)
        dealt = self._deal(entry, manifest, group)
        services = {service.name: service for service in group.services}
        ports = dict(entry.ports)
        slots = group.slots()

        def one(slot: Slot) -> Container:
            service = services[slot.service]
            return self._start_one(action, entry, slot, service, images[service.image], dealt[slot], ports)

        # A lease of one container is started on this thread: nothing stands between the manifest and its answer.
        containers = [one(slots[0])] if len(slots) == 1 else _results([self._starts.submit(one, slot) for slot in slots])
        self._started(action, containers, ports)

    def _ready_images(self, lease: str) -> None:
        """Have the images of a new manifest before the containers of the old one go: one that cannot be had ends nothing."""
        group = self.group(lease)
        if group is not None:
            self._images(group)

    @contextlib.contextmanager
    def _telling_of_pull(self, action: Start, wanted: Wanted) -> Iterator[None]:
        """While images are readied: a pull that lasts is told to the ledger, from a thread of its own."""
        if wanted.state is not LeaseState.MATCHED or wanted.pulling_ms:
            yield
            return
        ready = threading.Event()
        threading.Thread(target=self._tell_of_pull, args=(action, ready), name="pull", daemon=True).start()
        try:
            yield
        finally:
            ready.set()

    def _tell_of_pull(self, action: Start, ready: threading.Event) -> None:
        """Report the pull once, unless it is over before; the journal hears of it with the ledger's next answer."""
        pause_ms = self.policy.pull_report_ms
        while not ready.wait(pause_ms / 1000):
            try:
                self.ledger.send(ReportPulling(generation=action.generation, lease=action.lease))
            except LedgerUnreachable:
                pause_ms = RETRY_MS
            except Rejected as error:
                # A chain of older rules knows no such report; a lease that moved on needs none.
                log.info("the pull is not on the ledger", lease=action.lease, code=int(error.code), detail=error.detail)
                return
            else:
                log.info("reported", lease=action.lease, kind="pulling")
                return

    def _images(self, group: ManifestGroup) -> dict[str, Image]:
        wanted = {service.image: service.login for service in group.services}
        if len(wanted) == 1:
            return {reference: self.runtime.ensure_image(reference, login) for reference, login in wanted.items()}
        futures = [self._prepares.submit(self.runtime.ensure_image, reference, login) for reference, login in wanted.items()]
        return dict(zip(wanted, _results(futures), strict=True))

    def _deal(self, entry: Entry, manifest: Manifest, group: ManifestGroup) -> dict[Slot, tuple[str, ...]]:
        here = self.devices()
        missing = [device for device in entry.wanted.devices if device not in here]
        if missing:
            raise DeviceMissing(f"{len(missing)} devices of the lease are not on the host now")
        uuids = [here[device] for device in entry.wanted.devices]
        if len(uuids) != sum(service.gpus * service.count for service in group.services):
            raise DeviceMissing(f"the lease has {len(uuids)} devices, its manifest asks for another number")
        return {slot: tuple(uuids[first:end]) for slot, (first, end) in deal(group, manifest.resources).items()}

    def _start_one(
        self,
        action: Start,
        entry: Entry,
        slot: Slot,
        service: Service,
        image: Image,
        devices: tuple[str, ...],
        ports: dict[str, int],
    ) -> Container:
        for attempt in range(PORT_TRIES):
            for port, protocol in service.published:
                key = port_key(slot, port, protocol)
                if attempt or not ports.get(key):
                    ports[key] = free_port(self.publish_ip, protocol)
            spec: ContainerSpec = container_spec(
                service,
                slot,
                lease=action.lease,
                generation=action.generation,
                spec=action.spec,
                image=image,
                devices=devices,
                simulated=entry.wanted.simulated,
                host_ip=self.publish_ip,
                ports=ports,
            )
            try:
                return self.runtime.start(spec)
            except StartFailed as error:
                if error.kind != "port_taken" or attempt == PORT_TRIES - 1:
                    raise
        raise AssertionError("the last attempt returned or raised")

    def _started(self, action: Start, containers: list[Container], ports: dict[str, int]) -> None:
        for container in containers:
            for port in container.ports:
                if port.host_port:
                    ports[port_key(slot_of(container), port.container_port, port.protocol)] = port.host_port
        current = self.journal.get(action.lease)
        runs = all(c.state == "running" for c in containers) and current is not None and current.spec == action.spec
        self.journal.change(
            action.lease,
            started_ms=self.ledger.now_ms(),
            started_spec=action.spec,
            started_generation=action.generation,
            images={c.service: c.image_digest for c in containers},
            ports=ports,
            phase=Phase.RUNNING if runs else Phase.STARTING,
        )
        log.info("started", lease=action.lease, generation=action.generation, containers=len(containers))

    # Telling the ledger

    def _report(self, action: Report) -> None:
        entry = self.journal.get(action.lease)
        if entry is None:
            return
        lease, generation, wanted = action.lease, action.generation, entry.wanted
        changes: dict[str, Any]
        match action.kind:
            case "active":
                self.ledger.send(ReportActive(devices=wanted.devices, generation=generation, images=entry.images, lease=lease))
                changes = {"state": LeaseState.ACTIVE}
            case "up":
                self.ledger.send(ReportUp(generation=generation, lease=lease))
                changes = {"state": LeaseState.ACTIVE}
            case "down":
                since_ms = self.ledger.now_ms()
                self.ledger.send(ReportDown(generation=generation, lease=lease, reason=action.reason, since_ms=since_ms))
                changes = {"state": LeaseState.DOWN}
            case "release":
                self.ledger.send(Release(clean=True, generation=generation, lease=lease))
                changes = {"released": True}
            case _:
                raise AssertionError(action.kind)
        log.info("reported", lease=lease, kind=action.kind)
        self._moved(lease, **changes)

    def _close(self, action: Close) -> None:
        detail = action.detail.encode("ascii", "replace").decode()[:256]
        error = detail
        if action.reason == "start_failed":
            # What a container wrote is its tenant's: it is shown through the gateway, never on the ledger or in a log.
            error = f"{detail}; its last words: {self._last_words(action.lease)}"
        self.ledger.send(CloseLease(generation=action.generation, lease=action.lease, reason=action.reason, detail=detail))
        log.info("closed", lease=action.lease, reason=action.reason, detail=detail)
        self.journal.change(action.lease, phase=Phase.FAILED, error=error)
        self._moved(action.lease, state=LeaseState.CLOSED, reason=action.reason)

    def _moved(self, lease: str, **changes: Any) -> None:
        """Keep what our own message has just made of the lease; the ledger's next answer says it too."""
        entry = self.journal.get(lease)
        if entry is not None:
            wanted = msgspec.structs.replace(entry.wanted, **changes)
            self.journal.change(lease, wanted=wanted)

    def _last_words(self, lease: str) -> str:
        """The last lines of what ended."""
        words: list[str] = []
        with contextlib.suppress(Unknown, StartFailed):
            for container in self.runtime.containers(lease):
                if container.state != "running":
                    lines = self.runtime.logs(container.id, follow=False, tail=LOG_LINES)
                    with contextlib.closing(lines):
                        words.extend(line.text.strip() for line in lines)
        return " / ".join(words[-LOG_LINES:]) or "none"


def _results(futures: "list[Future[Any]]") -> list[Any]:
    """All results, in order; the first failure once all have ended."""
    errors = [error for error in (future.exception() for future in futures) if error is not None]
    if errors:
        raise errors[0]
    return [future.result() for future in futures]


def free_port(ip: str, protocol: str) -> int:
    """A port of that address that nobody has now."""
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family, kind) as probe:
            probe.bind((ip, 0))
            return int(probe.getsockname()[1])
    except OSError:
        return 0  # the engine picks one
