"""A small market for tests: a provider with a bid, a tenant with a deployment."""

from typing import Any

from marketplace.protocol.messages import CreateDeployment, Heartbeat, PutBid, RegisterHost, RegisterProvider, ReportActive
from marketplace.protocol.resources import Device, GpuAsk, GpuModel, Group, Offer, Prices, ResourceUnit, device_id
from tests.marketplace.node.serving import Served, address

PROVIDER = 7
TENANT = 8
GIB = 2**30


def offer(served: Served, host: str = "h1") -> None:
    """Register the provider and put a bid of two simulated GPUs."""
    chain = served.node.engine.genesis.chain_id
    devices = tuple(
        Device(id=device_id(chain, f"{host}-{n}"), model="h100", vendor="nvidia", vram_mib=81_920, simulated=True)
        for n in range(2)
    )
    known = served.call("GET", f"/v1/providers/{address(PROVIDER)}").status_code == 200
    if not known:
        served.fund(PROVIDER)
        served.done(PROVIDER, RegisterProvider(endpoint="https://127.0.0.1:8443", gateway_key="a" * 64))
    served.done(PROVIDER, RegisterHost(host=host), Heartbeat(hosts=(host,)))
    bid = PutBid(
        denomination="ucredit",
        expires_ms=served.node.engine.now_ms() + 3_600_000,
        host=host,
        offer=Offer(cpu_milli=64_000, memory=256 * GIB, storage={"ephemeral": 1000 * GIB}, devices=devices),
        prices=Prices(cpu="1000", gpu={"h100": "1000000"}, memory="100", port="0", storage={"*": "1"}),
    )
    served.done(PROVIDER, bid)


def group(**changed: Any) -> Group:
    """A group that the bid fits."""
    ask = GpuAsk(count=1, models=(GpuModel(vendor="nvidia", model="h100"),))
    unit = ResourceUnit(count=1, cpu_milli=1000, memory=GIB, gpu=ask)
    fields: dict[str, Any] = {
        "limit_per_hour": "9000000", "name": "dcloud", "resources": (unit,), "attributes": {"simulated": "true"},
    }  # fmt: skip
    return Group(**(fields | changed))


def deploy(served: Served, dseq: int, *groups: Group) -> Any:
    """Create a deployment of the tenant; the receipt."""
    if served.call("GET", f"/v1/accounts/{address(TENANT)}").status_code == 404:
        served.fund(TENANT)
    message = CreateDeployment(denomination="ucredit", deposit="5000000", dseq=dseq, groups=groups or (group(),), hash="b" * 64)
    return served.done(TENANT, message)


def activate(served: Served, lease: dict[str, Any]) -> None:
    """The provider reports that a lease runs."""
    report = ReportActive(
        devices=tuple(lease["devices"]), generation=lease["generation"], images={"web": "sha256:" + "c" * 64}, lease=lease["id"]
    )
    served.done(PROVIDER, report)
