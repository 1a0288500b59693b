"""A market in this process: a real node behind a socket, a provider that is only an account, and a gateway played by the test."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ledger.protocol.keys import address_of, public_key
from ledger.protocol.messages import Message
from marketplace.client import NodeClient
from marketplace.protocol.messages import CloseLease, Heartbeat, PutBid, RegisterHost, RegisterProvider, ReportActive
from marketplace.protocol.resources import Device, Offer, Prices, device_id
from provider.client import GatewayError, GatewayUnreachable
from tests.marketplace.node.listening import listening

GIB = 2**30
PROVIDER_SEED = bytes(31) + b"\x07"

SDL = """
version: "2.0"
services:
  web:
    image: nginx:1.27
    env: ["SECRET=hush"]
    expose:
      - port: 80
        to: [{global: true}]
profiles:
  compute:
    web:
      resources:
        cpu: {units: 100m}
        memory: {size: 32Mi}
        storage: {size: 64Mi}
  placement:
    here:
      pricing:
        web: {denom: uact, amount: 100000}
deployment:
  web:
    here: {profile: web, count: 1}
"""

TWO_GROUPS = SDL.replace(
    "deployment:\n",
    """\
    there:
      pricing:
        web: {denom: uact, amount: 100000}
deployment:
""",
).replace("    here: {profile: web, count: 1}\n", "    here: {profile: web, count: 1}\n    there: {profile: web, count: 1}\n")

GPU = SDL.replace(
    "        storage: {size: 64Mi}\n",
    "        storage: {size: 64Mi}\n        gpu: {units: 1, attributes: {vendor: {nvidia: [{model: h100}]}}}\n",
)


class Gateway:
    """A gateway that says what the test wants; stands in the place of GatewayClient.

    With `activate` it reports a lease to the ledger when it says that it runs. `phases` of a status, the last one for ever;
    `away` counts the calls that find nobody; `refusal` is raised by each.
    """

    def __init__(self, activate: Callable[[str], None] | None = None) -> None:
        self.activate = activate
        self.phases = ["running"]
        self.replicas = 1
        self.away = 0
        self.refusal: GatewayError | None = None
        self.manifests: dict[str, Sequence[Any]] = {}
        self.calls: list[str] = []
        self.tokens: list[str] = []
        self.lines = [line(1, "hello"), line(2, "again")]
        self.ran: list[dict[str, Any]] = [
            {"stream": "stdout", "data": b"out"},
            {"stream": "stderr", "data": b"err"},
            {"exit_code": 3},
        ]

    def __call__(self, endpoint: str, gateway_key: str, token: Any) -> Self:
        """Play the constructor of GatewayClient."""
        assert endpoint.startswith("https://")
        assert len(gateway_key) == 64
        self.token = token
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        pass

    def _called(self, name: str, lease: str, scope: str) -> None:
        self.calls.append(name)
        self.tokens.append(self.token(lease, scope))
        if self.away:
            self.away -= 1
            raise GatewayUnreachable("the gateway does not answer: refused")
        if self.refusal is not None:
            raise self.refusal

    def put_manifest(self, lease: str, manifest: Sequence[Any], spec: Any = None) -> dict[str, Any]:
        """Take a manifest."""
        self._called("manifest", lease, "manifest")
        self.manifests[lease] = manifest
        return self._status("preparing")

    def status(self, lease: str) -> dict[str, Any]:
        """Say the next phase."""
        self._called("status", lease, "status")
        phase = self.phases.pop(0) if len(self.phases) > 1 else self.phases[0]
        if phase == "running" and self.activate is not None:
            self.activate(lease)
        return self._status(phase)

    def _status(self, phase: str) -> dict[str, Any]:
        numbers = range(self.replicas)
        port = {"container_port": 80, "protocol": "tcp", "host": "127.0.0.1"}
        ports = [port | {"host_port": 32_000 + number, "replica": number} for number in numbers]
        replicas = [{"replica": number, "state": phase} for number in numbers]
        web = {"state": phase, "image": "nginx:1.27", "replicas": replicas, "ports": ports}
        return {"phase": phase, "generation": 1, "error": "it broke" if phase == "failed" else "", "services": {"web": web}}

    def logs(self, lease: str, **options: Any) -> Iterator[dict[str, Any]]:
        """Lines."""
        self._called(f"logs {sorted(options.items())}", lease, "logs")
        yield from self.lines

    def exec(self, lease: str, service: str, command: Sequence[str], **options: Any) -> Iterator[dict[str, Any]]:
        """What a command wrote."""
        self._called(f"exec {service} {list(command)} {sorted(options.items())}", lease, "exec")
        yield from self.ran


def line(second: int, text: str, stream: str = "stdout", replica: int = 0) -> dict[str, Any]:
    """A line of a log."""
    return {"service": "web", "replica": replica, "stream": stream, "time": f"2026-01-01T00:00:0{second}Z", "text": text}


class Scene:
    """A node at `url`, and its one provider's account."""

    def __init__(self, url: str, node: NodeClient) -> None:
        self.url = url
        self.node = node
        self.provider = address_of(public_key(PROVIDER_SEED))

    def send(self, *messages: Message) -> None:
        """A transaction of the provider."""
        self.node.sender(PROVIDER_SEED).send(*messages)

    def register(self) -> None:
        """Money and a record for the provider."""
        self.node.faucet(self.provider)
        self.send(RegisterProvider(endpoint="https://127.0.0.1:8443", gateway_key="a" * 64))

    def offer(self, host: str = "h1", cpu_milli: int = 64_000) -> None:
        """A host with CPUs and a simulated GPU, and its first bid."""
        status = self.node.status()
        gpu = Device(
            id=device_id(status["chain_id"], f"{host}-0"), model="h100", vendor="nvidia", vram_mib=81_920, simulated=True
        )
        self.send(RegisterHost(host=host), Heartbeat(hosts=(host,)))
        self.send(
            PutBid(
                denomination="ucredit",
                expires_ms=status["time_ms"] + 3_600_000,
                host=host,
                offer=Offer(cpu_milli=cpu_milli, memory=256 * GIB, storage={"ephemeral": 1000 * GIB}, devices=(gpu,), ports=100),
                prices=Prices(cpu="1000", gpu={"h100": "1000000"}, memory="100", port="0", storage={"*": "1"}),
            )
        )

    def activate(self, lease: str) -> None:
        """The provider says that a lease runs: its meter starts. Nothing where it has said so."""
        found = self.node.lease(lease)
        if found["state"] != "matched":
            return
        images = {"web": "sha256:" + "c" * 64}
        self.send(ReportActive(devices=tuple(found["devices"]), generation=found["generation"], images=images, lease=lease))

    def end(self, lease: str, reason: str, detail: str = "") -> None:
        """The provider ends a lease."""
        found = self.node.lease(lease)
        self.send(CloseLease(detail=detail, generation=found["generation"], lease=lease, reason=reason))


@contextmanager
def scene(folder: Path) -> Iterator[Scene]:
    """A market of its own in `folder`, with nothing on offer."""
    with listening(folder) as live, NodeClient(live.url) as node:
        found = Scene(live.url, node)
        found.register()
        yield found
