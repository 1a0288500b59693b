"""Figures of the node's REST interface, each beside a limit measured in the same run. `python -m tests.bench.rest`."""

import asyncio
import json
import os
import secrets
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil

from ledger.protocol import keys
from ledger.protocol.messages import Message, Transfer
from ledger.protocol.transaction import Transaction, sign_transaction
from marketplace.client import NodeClient
from marketplace.protocol.messages import CreateDeployment, Heartbeat, PutBid, RegisterHost, RegisterProvider
from marketplace.protocol.resources import Device, GpuAsk, GpuModel, Group, Offer, Prices, ResourceUnit, device_id
from tests.processes import Program, development_node

GIB = 2**30
LONE = 200
CONNECTIONS = 128
PACED_CONNECTIONS = 16
BARE = """
import asyncio, socket, sys, uvicorn, uvloop
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    body = (await receive()).get("body", b"")
    headers = [(b"content-type", b"application/json"), (b"content-length", b"2")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b"{}"})
sock = socket.create_server(("127.0.0.1", 0), backlog=2048)
sock.setblocking(False)
print("ready", sock.getsockname()[1], flush=True)
server = uvicorn.Server(uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", server_header=False))
with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
    runner.run(server.serve(sockets=[sock]))
"""

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


def transfers(chain: tuple[str, int], count: int, signers: int = 1) -> list[bytes]:
    """Transfers of one micro-unit, over as many signers."""
    message = Transfer(amount="1", denomination="ucredit", to=address(999))
    return [signed(*chain, 1 + n % signers, message) for n in range(count)]


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


async def _stream(port: int, requests: list[bytes]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for request in requests:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        await reader.readexactly(length)
    writer.close()
    await writer.wait_closed()


def rate(port: int, path: str, bodies: list[bytes]) -> float:
    """Requests a second over several connections at once, sent by this process."""
    requests = [b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (path.encode(), len(b)) + b for b in bodies]

    async def all_of() -> float:
        begun = time.perf_counter()
        await asyncio.gather(*(_stream(port, requests[n::CONNECTIONS]) for n in range(CONNECTIONS)))
        return len(requests) / (time.perf_counter() - begun)

    return asyncio.run(all_of())


async def _open_loop(port: int, bodies: list[bytes], each_s: float) -> list[float]:
    """Seconds from when each request was due to its answer, sent at a fixed pace whatever happens."""
    taken: list[float] = []
    begun = asyncio.get_running_loop().time() + 0.2

    async def one(worker: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for n in range(worker, len(bodies), PACED_CONNECTIONS):
            due = begun + n * each_s
            await asyncio.sleep(max(0, due - asyncio.get_running_loop().time()))
            body = bodies[n]
            writer.write(b"POST /v1/transactions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
            taken.append(asyncio.get_running_loop().time() - due)
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one(n) for n in range(PACED_CONNECTIONS)))
    return taken


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


def _many(url: str, port: int, bare_port: int) -> Iterator[Figure]:
    """How many a second: single posts, batches, and the wait at a steady pace."""
    with NodeClient(url) as client:
        for n in range(1, 33):
            client.faucet(address(n))
        bodies = transfers(client.chain(), 8_000, 32)
        rate(bare_port, "/", bodies[:500])
        bare = rate(bare_port, "/", bodies)
        posts = rate(port, "/v1/transactions", bodies)
        yield figure("POST /v1/transactions, durable", posts, "1/s", bare, posts / bare, 0.75, most=False)
        two_cores = verify_rate()
        raws = transfers(client.chain(), 12_800, 32)
        batches = [b"[" + b",".join(raws[n : n + 100]) + b"]" for n in range(0, len(raws), 100)]
        batched = rate(port, "/v1/transactions/batch", batches) * 100
        yield figure("batches of 100, durable", batched, "tx/s", two_cores, batched / two_cores, 0.35, most=False)
        paced = asyncio.run(_open_loop(port, transfers(client.chain(), 2_000, 32), 1 / 200))
    p99 = statistics.quantiles(paced, n=100)[98] * 1000
    yield figure("acknowledged at 200/s, p99", p99, "ms", None, None, 20.0, most=True)


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
            with subprocess.Popen([sys.executable, "-c", BARE], stdout=subprocess.PIPE, text=True) as bare:
                try:
                    assert bare.stdout is not None
                    bare_port = int(bare.stdout.readline().split()[1])
                    port = int(url.rsplit(":", 1)[1])
                    with NodeClient(url) as client:
                        client.faucet(address(1))
                    yield from _lone(url, port, bare_port, folder)
                    yield from _many(url, port, bare_port)
                finally:
                    bare.terminate()


if __name__ == "__main__":
    for found in figures():
        print(json.dumps(found, ensure_ascii=False), flush=True)
