"""From a manifest that the gateway accepted to an answering container, beside docker-py doing the same.

Both make the same network, run the same image by the same profile with the same limits, and wait for the same port;
rounds alternate. Ours adds the gateway, the journal, the firewall's rules and the report to the ledger.
"""

import json
import resource
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker
from docker.models.containers import Container

from ledger.keystore import Keystore
from marketplace.client import NodeClient
from provider.runtime.naming import network_name
from provider.runtime.port import ContainerSpec, Image, PortMap
from provider.runtime.profile import Limits, create_arguments
from tenant.deploy.flow import Deployer
from tests.processes import Program, User, clear_engine, development_node, eventually, provider

Figure = dict[str, Any]

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 10
SDL = (ROOT / "tenant" / "examples" / "web.yaml").read_bytes()


def answers(url: str) -> None:
    """Wait until the port answers, looking every 2 ms."""
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                answer.read()
                return
        except OSError:
            assert time.monotonic() < deadline, url
            time.sleep(0.002)


def ours(flow: Deployer, engine: docker.DockerClient) -> float:
    """Seconds from the gateway's 202 to the answer of the port; the order and its match come before."""
    plan = flow.prepare(SDL)
    flow.create(plan)
    lease = flow.wait_matched(plan.dseq, 60)[0]
    flow.send_manifest(lease)
    began = time.perf_counter()

    def port() -> str | None:
        # The engine itself is asked, so that the tenant's own polling is not measured.
        for found in engine.api.containers(all=True, filters={"label": f"io.gpubid.lease={lease['id']}"}):
            for mapped in found["Ports"]:
                if mapped.get("PublicPort"):
                    return f"http://127.0.0.1:{mapped['PublicPort']}/"
        return None

    # Looked for often, but not so often that the engine has more to do than in the other rounds.
    deadline = time.monotonic() + 60
    while (url := port()) is None:
        assert time.monotonic() < deadline, "no published port"
        time.sleep(0.01)
    answers(url)
    taken = time.perf_counter() - began
    flow.close(plan.dseq)
    eventually(lambda: flow.node.lease(lease["id"])["released"], "the lease is released")
    return taken


def docker_py(engine: docker.DockerClient, image: Image, number: int) -> float:
    """Seconds that docker-py takes for the same network, profile and run, to the answer of the port."""
    spec = ContainerSpec(
        lease=f"bench/{number}",
        generation=1,
        service="web",
        replica=0,
        image=image,
        cpu_milli=250,
        memory=64 * 2**20,
        disk=128 * 2**20,
        command=("/bin/sh", "-c"),
        args=("echo serving on port 8080; exec httpd -f -vv -p 8080 -h /var/www",),
        ports=(PortMap(container_port=8080, protocol="tcp"),),
    )
    # As the runtime does where the engine itself may not open more.
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limits = Limits(open_files=65_536 if hard == resource.RLIM_INFINITY else min(65_536, hard))
    arguments = create_arguments("bench", spec, api_version=engine.api.api_version, limits=limits)
    began = time.perf_counter()
    network = engine.networks.create(network_name("bench", spec.lease), driver="bridge")
    container: Container = engine.containers.create(**arguments)
    try:
        container.start()
        container.reload()
        answers(f"http://127.0.0.1:{container.ports['8080/tcp'][0]['HostPort']}/")
        return time.perf_counter() - began
    finally:
        container.remove(force=True)
        network.remove()


def cpu_s(program: Program) -> float:
    """Processor seconds of a process so far."""
    fields = Path(f"/proc/{program.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / 100


def rss_mib(program: Program) -> float:
    """Resident memory in MiB."""
    for line in Path(f"/proc/{program.process.pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


def idle(program: Program, seconds: float = 30) -> float:
    """Share of a core that a process takes while nothing happens."""
    time.sleep(5)  # what was started has settled
    began, used = time.perf_counter(), cpu_s(program)
    time.sleep(seconds)
    return (cpu_s(program) - used) / (time.perf_counter() - began)


def figures() -> Iterator[Figure]:
    """The ratio to docker-py, and what an idle provider costs."""
    url = subprocess.run([str(ROOT / ".ci/engine.sh"), "ensure"], capture_output=True, text=True, check=True).stdout.strip()
    subprocess.run([str(ROOT / ".ci/image.sh"), url, "gpubid/busybox:test"], check=True)
    engine = docker.DockerClient(base_url=url, timeout=60)
    with tempfile.TemporaryDirectory(prefix="gpubid-bench-") as name, development_node(Path(name)) as (_, node):
        began = time.perf_counter()
        with provider(Path(name), node, url) as (program, _address):
            started = time.perf_counter() - began
            tenant = User(Path(name) / "tenant", node)
            tenant.key()
            tenant.ok("account", "faucet")
            seed = Keystore(tenant.home / "keys").unlock("default", None)
            found = engine.images.get("gpubid/busybox:test").id
            image = Image(digest=found, id=found, reference="gpubid/busybox:test")
            with NodeClient(node) as client:
                flow = Deployer(client, seed, tenant.home / "tenant")
                pairs = [(ours(flow, engine), docker_py(engine, image, n)) for n in range(ROUNDS)]
            mine, theirs = (statistics.median(values) * 1000 for values in zip(*pairs, strict=True))
            ratio = mine / theirs
            yield {
                "name": "manifest accepted → container answers", "value": mine, "unit": "ms", "limit": theirs, "ratio": ratio,
                "goal": 1.25, "met": ratio <= 1.25,
            }  # fmt: skip
            share = idle(program) * 100
            yield {
                "name": "idle provider, processor", "value": share, "unit": "% of a core", "limit": None, "ratio": None,
                "goal": 2.0, "met": share <= 2.0,
            }  # fmt: skip
            memory = rss_mib(program)
            bare: Figure = {"limit": None, "ratio": None, "goal": None, "met": None}
            yield {"name": "idle provider, memory", "value": memory, "unit": "MiB"} | bare
            yield {"name": "provider start", "value": started, "unit": "s"} | bare
    clear_engine(url, "bench")
    engine.close()


if __name__ == "__main__":
    for row in figures():
        print(json.dumps(row))
