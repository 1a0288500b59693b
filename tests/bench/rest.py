"""Figures of the node's REST interface, each beside a limit measured in the same run. `python -m tests.bench.rest`."""

import json
import os
import secrets
import socket
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from ledger.protocol import keys
from ledger.protocol.messages import Message, Transfer
from ledger.protocol.transaction import Codec, Transaction, sign_transaction
from marketplace.client import NodeClient
from marketplace.protocol.messages import CreateDeployment, Heartbeat, PutBid, RegisterHost, RegisterProvider
from marketplace.protocol.resources import Device, GpuAsk, GpuModel, Group, Offer, Prices, ResourceUnit, device_id
from tests.bench.load import Clients, busy, request
from tests.bench.servers import running
from tests.processes import Program, development_node

GIB = 2**30
LONE = 200
CONNECTIONS = 512
"""Clients at once, each with one request under way."""

PACED_CONNECTIONS = 16
ROUNDS = 3
POSTS = 6_000
BATCHES = 32
READS = 200

Figure = dict[str, Any]


def seed(number: int) -> bytes:
    """Seed (32 bytes) of a user of the bench."""
    return number.to_bytes(32, "big")


def address(number: int) -> str:
    """Address of that user."""
    return keys.address_of(keys.public_key(seed(number)))


def signed(chain_id: str, now_ms: int, by: int, *messages: Message) -> bytes:
    """Signed bytes, valid for 110 s."""
    key = keys.public_key(seed(by))
    made = Transaction(
        chain_id=chain_id, messages=messages, nonce=secrets.token_hex(16), principal=keys.address_of(key), sequence=0,
        signer=key.hex(), valid_until=now_ms + 110_000,
    )  # fmt: skip
    return sign_transaction(made, seed(by))


def transfers(chain: tuple[str, int], count: int, signers: int = 1, first: int = 1) -> list[bytes]:
    """Transfers of one micro-unit, over as many signers from user `first` on."""
    message = Transfer(amount="1", denomination="ucredit", to=address(999))
    return [signed(*chain, first + n % signers, message) for n in range(count)]


def posts(raws: list[bytes]) -> list[bytes]:
    """Requests for transactions, one each."""
    return [request("/v1/transactions", raw) for raw in raws]


class Wire:
    """One keep-alive connection that posts bytes and reads whole answers, as little as can be in the way."""

    def __init__(self, port: int) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.file = self.sock.makefile("rb", buffering=65_536)

    def post(self, path: str, body: bytes) -> tuple[int, bytes]:
        """(status, body) of the answer."""
        self.sock.sendall(b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (path.encode(), len(body)) + body)
        status = int(self.file.readline().split()[1])
        length = 0
        while (line := self.file.readline()) not in (b"\r\n", b""):
            if line.lower().startswith(b"content-length:"):
                length = int(line[15:])
        return status, self.file.read(length)

    def close(self) -> None:
        """Close it."""
        self.file.close()
        self.sock.close()


def seconds(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    begun = time.perf_counter()
    action()
    return time.perf_counter() - begun


def _verify_many(pairs: list[tuple[bytes, bytes, bytes]]) -> int:
    return sum(keys.verify(*pair) for pair in pairs)


def verify_rate() -> float:
    """Verifications a second by two processes."""
    message = os.urandom(32)
    pair = (keys.public_key(seed(1)), message, keys.sign(seed(1), message))
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        list(pool.map(_verify_many, [[pair] * 10] * 2))
        return 20_000 / seconds(lambda: list(pool.map(_verify_many, [[pair] * 10_000] * 2)))


def figure(
    name: str, value: float, unit: str, limit: float | None, ratio: float | None, goal: float | None, *, most: bool
) -> Figure:
    """A figure; `most` where the goal is an upper bound. The goal is compared with the ratio, or else with the value."""
    compared = value if ratio is None else ratio
    met = None if goal is None else bool(compared <= goal if most else compared >= goal)
    return {"name": name, "value": value, "unit": unit, "limit": limit, "ratio": ratio, "goal": goal, "met": met}


def market(client: NodeClient, hosts: int) -> None:
    """A provider with hosts of 8 simulated GPUs each, a tenant with money."""
    for number in (50, 51):
        client.faucet(address(number), str(10**12))
    chain_id, _ = client.chain()
    client.post(signed(*client.chain(), 50, RegisterProvider(endpoint="https://127.0.0.1:8443", gateway_key="a" * 64)))
    for n in range(hosts):
        name = f"h{n}"
        devices = tuple(
            Device(id=device_id(chain_id, f"{name}-{d}"), model="h100", vendor="nvidia", vram_mib=81_920, simulated=True)
            for d in range(8)
        )
        bid = PutBid(
            denomination="ucredit", expires_ms=client.chain()[1] + 3_600_000, host=name,
            offer=Offer(cpu_milli=10**6, memory=2**40, storage={"ephemeral": 2**44}, devices=devices),
            prices=Prices(cpu="1000", gpu={"h100": "1000000"}, memory="100", port="0", storage={"*": "1"}),
        )  # fmt: skip
        client.post(signed(*client.chain(), 50, RegisterHost(host=name), Heartbeat(hosts=(name,)), bid))


def order(chain: tuple[str, int], dseq: int) -> bytes:
    ask = GpuAsk(count=1, models=(GpuModel(vendor="nvidia", model="h100"),))
    unit = ResourceUnit(count=1, cpu_milli=1000, memory=GIB, gpu=ask)
    group = Group(limit_per_hour="9000000", name="g", resources=(unit,), attributes={"simulated": "true"})
    message = CreateDeployment(denomination="ucredit", deposit="5000000", dseq=dseq, groups=(group,), hash="b" * 64)
    return signed(*chain, 51, message)


def _lone(url: str, port: int, bare_port: int, folder: Path) -> Iterator[Figure]:
    """What one client waits: orders to leases, and transfers; limits are taken in the same rounds, so noise meets both."""
    with NodeClient(url) as client:
        market(client, 32)
        orders = [order(client.chain(), n + 1) for n in range(LONE)]
        moves = transfers(client.chain(), LONE)
    message = os.urandom(32)
    pair = (keys.public_key(seed(1)), message, keys.sign(seed(1), message))
    taken: dict[str, list[float]] = {"sync": [], "verify": [], "empty": [], "order": [], "transfer": []}
    wire, bare = Wire(port), Wire(bare_port)
    with (folder / "sync").open("wb") as file:

        def sync() -> None:
            file.write(b"x" * 4096)
            file.flush()
            os.fdatasync(file.fileno())

        def send(body: bytes) -> None:
            status, answer = wire.post("/v1/transactions", body)
            assert status == 200, answer

        try:
            for asked, move in zip(orders, moves, strict=True):
                taken["sync"].append(seconds(sync))
                taken["verify"].append(seconds(lambda: keys.verify(*pair)))
                taken["empty"].append(seconds(lambda: bare.post("/", b"")))
                taken["order"].append(seconds(partial(send, asked)))
                taken["transfer"].append(seconds(partial(send, move)))
        finally:
            wire.close()
            bare.close()
    with NodeClient(url) as client:
        matched = len(client.leases(owner=address(51)))
    assert matched == LONE, f"{matched} of {LONE} orders became leases"
    p50 = {name: statistics.median(values) * 1000 for name, values in taken.items()}
    limit = p50["sync"] + 2 * p50["verify"] + p50["empty"]
    parts = f"fdatasync {p50['sync']:.2f} + 2 verify {p50['verify']:.2f} + POST {p50['empty']:.2f}"
    yield figure(
        f"order → lease durable, 1 client, p50 (limit: {parts})", p50["order"], "ms", limit, p50["order"] / limit, 1.5, most=True
    )
    yield figure("lone transfer durable, p50", p50["transfer"], "ms", limit, p50["transfer"] / limit, 1.5, most=True)


def _cpu(process: psutil.Process) -> dict[str, float]:
    """Seconds of CPU so far: a node's loop, its writer (it checks signatures while it would wait), its other processes, ours."""
    threads = {thread.id: thread.user_time + thread.system_time for thread in process.threads()}
    return {
        "the loop: HTTP": threads.pop(process.pid),
        "the writer: decode, apply, root, commit, a share of the signatures": sum(threads.values()),
        "the other signatures": sum(sum(child.cpu_times()[:2]) for child in process.children()),
        "the client": time.process_time(),
    }


def _durable(client: NodeClient, process: psutil.Process, port: int, bare_port: int) -> Iterator[Figure]:
    """Single posts against bare ASGI, in rounds of both; and where the CPU of one goes."""
    bare, ours, spent = [], [], Counter[str]()
    for number in range(ROUNDS + 1):
        requests = posts(transfers(client.chain(), POSTS if number else 1_000, 64))
        with Clients(bare_port, CONNECTIONS) as clients:
            limit = len(requests) / clients.all_of(requests).seconds
        with Clients(port, CONNECTIONS) as clients:
            before = _cpu(process)
            driven = clients.all_of(requests)
            after = _cpu(process)
        assert driven.good == len(requests), f"{driven.good} of {len(requests)} were applied"
        if number:  # the first round starts what there is to start
            bare.append(limit)
            ours.append(len(requests) / driven.seconds)
            spent.update({part: (after[part] - before[part]) * 1e6 / POSTS for part in after})
    ratio = statistics.median(o / b for o, b in zip(ours, bare, strict=True))
    limit = statistics.median(bare)
    name = f"POST /v1/transactions, durable, {CONNECTIONS} clients (limit: bare ASGI)"
    yield figure(name, statistics.median(ours), "1/s", limit, ratio, 0.75, most=False)
    parts = {part: total / ROUNDS for part, total in spent.items()}
    for part, value in parts.items():
        yield figure(f"CPU of a durable POST: {part}", value, "µs", None, None, None, most=True)
    codec, raw = Codec((Transfer,)), transfers(client.chain(), 1)[0]
    decode = seconds(lambda: [codec.decode(raw) for _ in range(5_000)]) / 5_000 * 1e6
    yield figure("CPU of a durable POST: decode alone", decode, "µs", None, None, None, most=True)
    possible = 2e6 / sum(parts.values())
    yield figure(
        "durable POSTs if both cores did only that (limit: bare ASGI)", possible, "1/s", limit, possible / limit, None, most=False
    )


def _layer(chain: tuple[str, int]) -> Iterator[Figure]:
    """The HTTP layer alone: an edge whose engine answers at once, beside bare ASGI; server and client have a core each."""
    cores = sorted(os.sched_getaffinity(0))
    requests = posts(transfers(chain, POSTS, 64))
    bare, ours = [], []
    with running("bare", cores[-1]) as bare_port, running("edge", cores[-1]) as edge_port:
        os.sched_setaffinity(0, {cores[0]})
        try:
            with Clients(bare_port, CONNECTIONS) as bare_clients, Clients(edge_port, CONNECTIONS) as edge_clients:
                for _ in range(ROUNDS + 1):
                    bare.append(POSTS / bare_clients.all_of(requests).seconds)
                    ours.append(POSTS / edge_clients.all_of(requests).seconds)
        finally:
            os.sched_setaffinity(0, cores)
    ratio = statistics.median(o / b for o, b in zip(ours[1:], bare[1:], strict=True))
    name = "POST /v1/transactions, HTTP layer alone on one core (limit: bare ASGI there)"
    yield figure(name, statistics.median(ours[1:]), "1/s", statistics.median(bare[1:]), ratio, 0.75, most=False)


def _batches(client: NodeClient, port: int) -> Iterator[Figure]:
    """Batches of 100 by 8 signers, in rounds with the limit."""
    ours, limits = [], []
    for _ in range(ROUNDS):
        raws = transfers(client.chain(), BATCHES * 100, 8)
        requests = [
            request("/v1/transactions/batch", b"[" + b",".join(raws[n : n + 100]) + b"]") for n in range(0, len(raws), 100)
        ]
        before = verify_rate()
        with Clients(port, BATCHES) as clients:
            driven = clients.all_of(requests)
        assert driven.good == len(requests)
        ours.append(len(raws) / driven.seconds)
        limits.append((before + verify_rate()) / 2)
    ratio = statistics.median(o / limit for o, limit in zip(ours, limits, strict=True))
    name = "batches of 100 by 8 signers, durable (limit: two-core verify)"
    yield figure(name, statistics.median(ours), "tx/s", statistics.median(limits), ratio, 0.35, most=False)


def _waits(client: NodeClient, port: int) -> Iterator[Figure]:
    """What clients wait: transactions at a steady pace; reads, alone and while transactions are written at full rate."""
    with Clients(port, PACED_CONNECTIONS) as clients:
        paced = clients.paced(posts(transfers(client.chain(), 1_600, 64)), 1 / 200)
        yield figure("acknowledged at 200/s, p99", _quantile(paced, 99), "ms", None, None, 20.0, most=True)
        paths = ("/v1/status", f"/v1/accounts/{address(1)}", "/v1/leases", "/v1/parameters")
        reads = [request(paths[n % len(paths)], b"", "GET") for n in range(READS)]
        alone = clients.paced(reads, 1 / 50)
        with busy(port, posts(transfers(client.chain(), 60_000, 64)), CONNECTIONS):
            beside = clients.paced(reads, 1 / 50)
    for name, taken in (("alone", alone), ("while transactions are posted at full rate", beside)):
        for percent in (50, 99):
            yield figure(f"GET {name}, p{percent}", _quantile(taken, percent), "ms", None, None, None, most=True)


def _quantile(taken: list[float], percent: int) -> float:
    return statistics.quantiles(taken, n=100)[percent - 1] * 1000


def _many(url: str, process: psutil.Process, port: int, bare_port: int) -> Iterator[Figure]:
    """How many a second, and how long each waits."""
    with NodeClient(url) as client:
        for n in range(1, 65):
            client.faucet(address(n))
        yield from _durable(client, process, port, bare_port)
        yield from _layer(client.chain())
        yield from _batches(client, port)
        yield from _waits(client, port)


def _idle(program: Program, started_s: float) -> Iterator[Figure]:
    """What a node costs that does nothing."""
    process = psutil.Process(program.process.pid)
    family = [process, *process.children(recursive=True)]
    before = sum(sum(p.cpu_times()[:2]) for p in family)
    time.sleep(5)
    busy = (sum(sum(p.cpu_times()[:2]) for p in family) - before) / 5
    memory = sum(p.memory_full_info().pss for p in family) / 2**20
    yield figure("node start to ready", started_s, "s", None, None, None, most=True)
    yield figure("memory of the node's processes", memory, "MiB", None, None, None, most=True)
    yield figure("idle CPU", busy * 100, "% of a core", None, None, None, most=True)


def figures() -> Iterator[Figure]:
    """All figures of this part."""
    with tempfile.TemporaryDirectory(prefix="gpubid-bench-") as name:
        folder = Path(name)
        begun = time.perf_counter()
        with development_node(folder) as (program, url):
            started_s = time.perf_counter() - begun
            yield from _idle(program, started_s)
            with running("bare") as bare_port:
                port = int(url.rsplit(":", 1)[1])
                with NodeClient(url) as client:
                    client.faucet(address(1))
                yield from _lone(url, port, bare_port, folder)
                yield from _many(url, psutil.Process(program.process.pid), port, bare_port)


if __name__ == "__main__":
    for found in figures():
        print(json.dumps(found, ensure_ascii=False), flush=True)
