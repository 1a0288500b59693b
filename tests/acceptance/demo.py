"""`make demo`: a market on this machine, and a real container leased through it, as three users would do it.

Every figure is read from the running system. Everything lives in build/demo and is gone at the end; what an earlier
demo left behind when it was killed is cleared first.
"""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / "build" / "demo"
GPUBID = str(Path(sys.executable).parent / "gpubid")
SDL = "tenant/examples/web.yaml"
PATIENCE_S = 90.0
BOLD, DIM, PLAIN = ("\033[1m", "\033[2m", "\033[0m") if sys.stdout.isatty() and not os.environ.get("NO_COLOR") else ("", "", "")

began = time.monotonic()


def step(text: str) -> None:
    """Say what comes next, with the seconds so far."""
    print(f"\n{BOLD}[{time.monotonic() - began:5.1f} s] {text}{PLAIN}", flush=True)


def show(text: str) -> None:
    """Print indented text."""
    for line in text.rstrip().splitlines():
        print(f"    {line}", flush=True)


def environment(user: str, node: str = "") -> dict[str, str]:
    """The settings of a user of the demo, and nothing of the caller's."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith("GPUBID_")}
    return kept | {"GPUBID_HOME": str(HOME / user), "NO_COLOR": "1"} | ({"GPUBID_NODE": node} if node else {})


class Person:
    """A user who types commands."""

    def __init__(self, name: str, node: str = "") -> None:
        self.name = name
        self.node = node

    def run(self, *arguments: str, quiet: bool = False) -> str:
        """Type a command, show it and its answer; the demo ends where it fails."""
        if not quiet:
            print(f"  {DIM}{self.name}${PLAIN} gpubid {' '.join(arguments)}", flush=True)
        done = subprocess.run(
            [GPUBID, *arguments], cwd=ROOT, env=environment(self.name, self.node), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            show(done.stdout + done.stderr)
            raise SystemExit(f"demo: `gpubid {' '.join(arguments)}` ended with {done.returncode}")
        if not quiet:
            show(done.stderr + done.stdout)
        return done.stdout

    def json(self, *arguments: str) -> Any:
        """Ask the same for the demo's own use."""
        return json.loads(self.run(*arguments, "-o", "json", quiet=True))


@contextlib.contextmanager
def daemon(person: Person, *arguments: str) -> Iterator[str]:
    """Start a daemon, wait for its ready line and give it; end it afterwards."""
    print(f"  {DIM}{person.name}${PLAIN} gpubid {' '.join(arguments)} &", flush=True)
    (HOME / person.name).mkdir(parents=True, exist_ok=True)
    out, err = HOME / f"{person.name}.out", HOME / f"{person.name}.err"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        process = subprocess.Popen(
            [GPUBID, *arguments],
            cwd=ROOT,
            env=environment(person.name, person.node),
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
        )
    with (HOME / "pids").open("a") as pids:
        pids.write(f"{process.pid}\n")
    try:
        deadline = time.monotonic() + PATIENCE_S
        ready = ""
        while not ready:
            ready = next((line for line in out.read_text().splitlines() if line.startswith("ready ")), "")
            if process.poll() is not None or time.monotonic() > deadline:
                show(err.read_text()[-3000:])
                raise SystemExit(f"demo: {arguments[0]} did not start")
            time.sleep(0.02)
        show(ready)
        yield ready
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
        if process.poll() is None:
            process.kill()
        process.wait()


def clear_leftovers(engine: str) -> None:
    """End what a demo that was killed left running: processes by their pids, containers and networks by their labels."""
    pids = HOME / "pids"
    for line in pids.read_text().split() if pids.exists() else []:
        command = Path(f"/proc/{line}/cmdline")
        with contextlib.suppress(OSError):
            if str(HOME).encode() in Path(f"/proc/{line}/environ").read_bytes() and b"gpubid" in command.read_bytes():
                os.kill(int(line), signal.SIGKILL)
    key = HOME / "provider" / "keys" / "provider.json"
    if key.exists():
        remove_from_engine(engine, json.loads(key.read_text())["address"])
    shutil.rmtree(HOME, ignore_errors=True)


def remove_from_engine(engine: str, provider: str) -> None:
    """Remove all that a provider has on the engine, rules of its networks included."""
    from provider.runtime.docker import DockerRuntime

    runtime = DockerRuntime(engine, provider)
    for lease in runtime.leases():
        runtime.remove(lease)


def prepare_engine() -> tuple[str, bool]:
    """A Docker Engine with the demo's image: (its URL, whether the demo started it)."""
    script = str(ROOT / ".ci" / "engine.sh")
    private = subprocess.run([script, "url"], capture_output=True, text=True, check=True).stdout.strip()
    ran_before = Path(private.removeprefix("unix://")).exists()
    done = subprocess.run([script, "ensure"], stdout=subprocess.PIPE, text=True, check=False, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise SystemExit("demo: no Docker Engine answers and none could be started")
    engine = done.stdout.strip().splitlines()[-1]
    subprocess.run([str(ROOT / ".ci" / "image.sh"), engine, "gpubid/busybox:test"], check=True, stdin=subprocess.DEVNULL)
    return engine, engine == private and not ran_before


def fetch(url: str) -> str:
    """The service's answer over its published port; retried until it listens."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:  # a loopback address that the lease itself names
                return str(answer.read().decode())
        except OSError as error:
            if time.monotonic() > deadline:
                raise SystemExit(f"demo: {url} does not answer: {error}") from None
            time.sleep(0.05)


def tenant_story(tenant: Person) -> None:
    """From a deployment file to the exact bill."""
    step("a tenant makes a key and takes credits from the development faucet")
    tenant.run("keys", "add", "--no-passphrase")
    tenant.run("account", "faucet")
    before = tenant.json("account", "show")
    step("the order book, and what the file would cost")
    tenant.run("market", "bids")
    tenant.run("quote", SDL)
    step("order, match, lease, image, container")
    tenant.run("deploy", SDL)
    lease = tenant.json("lease", "list")[0]["id"]
    status = tenant.json("lease", "status", lease)
    port = next(port for service in status["services"].values() for port in service["ports"])
    url = f"http://{port['host']}:{port['host_port']}/"
    step(f"the service answers at {url}")
    show(fetch(url))
    step("its log, and a command inside it")
    tenant.run("lease", "logs", lease, "--tail", "5")
    tenant.run("lease", "exec", lease, "--", "uname", "-sm")
    step("the cost ticks by the millisecond")
    for _ in range(2):
        view = tenant.json("lease", "show", lease)
        show(f"up {view['up_ms']} ms  cost {view['cost']} micro-credits")
        time.sleep(0.5)
    tenant.run("lease", "show", lease)
    step("close: the exact bill, and the refund")
    tenant.run("lease", "close", lease, "--yes")
    after = tenant.json("account", "show")
    spent = int(before["balances"]["ucredit"]) - int(after["balances"]["ucredit"])
    show(f"balance before {before['balances']['ucredit']}, after {after['balances']['ucredit']}: spent {spent} micro-credits")


def wait_until_released(person: Person, engine: str, provider: str) -> None:
    """Wait until the provider has removed its containers and said so."""
    from provider.runtime.docker import DockerRuntime

    runtime = DockerRuntime(engine, provider)
    deadline = time.monotonic() + PATIENCE_S
    while runtime.leases() or not all(lease["released"] for lease in person.json("market", "leases")):
        if time.monotonic() > deadline:
            raise SystemExit("demo: the provider did not clear its host")
        time.sleep(0.1)


def market_story(engine: str) -> None:
    """Node, provider, tenant; then the replay."""
    step("a node: SQLite, the embedded engine, REST")
    with daemon(Person("node"), "node", "start", "--dev", "--listen", "127.0.0.1:0") as ready:
        node = ready.split()[1]
        operator = Person("provider", node)
        step("a provider: inventory probed, bid signed and in the book")
        operator.run("keys", "add", "provider", "--no-passphrase")
        command = [
            "provider",
            "start",
            "--from",
            "provider",
            "--docker",
            engine,
            "--listen",
            "127.0.0.1:0",
            "--simulate-gpus",
            "h100:2",
        ]
        with daemon(operator, *command):
            address = operator.json("keys", "show", "provider")["address"]
            tenant_story(Person("tenant", node))
            step("the provider clears its host")
            wait_until_released(operator, engine, address)
            operator.run("account", "show", "--from", "provider")
        step("the chain replayed from genesis to the same state root")
        tenant = Person("tenant", node)
        tenant.run("node", "status")
        tenant.run("ledger", "verify")


def alone() -> TextIO:
    """A lock that only one demo of this checkout holds; it ends with the process, however that ends."""
    (ROOT / "build").mkdir(exist_ok=True)
    file = (ROOT / "build" / "demo.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        raise SystemExit("demo: another demo runs in this checkout; wait for it") from None
    return file


def main() -> None:
    """Run the demo; whatever happens, nothing is left behind."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    lock = alone()
    step("a Docker Engine and a small image")
    engine, started = prepare_engine()
    show(engine)
    clear_leftovers(engine)
    HOME.mkdir(parents=True)
    try:
        market_story(engine)
    finally:
        clear_leftovers(engine)
        if started:
            subprocess.run([str(ROOT / ".ci" / "engine.sh"), "stop"], check=False, stdin=subprocess.DEVNULL)
    lock.close()
    print(f"\n{BOLD}done in {time.monotonic() - began:.1f} s; nothing is left behind{PLAIN}")


if __name__ == "__main__":
    main()
