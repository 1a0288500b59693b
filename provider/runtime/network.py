"""What a lease's containers may reach: each other and the internet; not the host, not its network, not another lease.

All bridges of leases have names of one form, so three chains of our own serve them all, and asserting them again is one
call. Docker's own rules come after and are not touched.
"""

import ipaddress
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

BRIDGES: Final = "gb-+"
INPUT: Final = "GPUBID-INPUT"
FORWARD: Final = "GPUBID-FORWARD"
PEERS: Final = "GPUBID-PEERS"

PRIVATE: Final = (
    "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
    "192.168.0.0/16", "198.18.0.0/15", "224.0.0.0/4", "240.0.0.0/4",
)  # fmt: skip
"""Where nothing of the internet is: the operator's own network, a cloud's metadata service, multicast."""

COMMAND_TIMEOUT_S: Final = 60

Runner = Callable[[Sequence[str], str], tuple[int, str]]
"""Runs a program with standard input: (exit status, what it said on standard error)."""


def run(command: Sequence[str], stdin: str) -> tuple[int, str]:
    """Run a program to its end; a missing or stuck one gives status 127."""
    try:
        done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=COMMAND_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return 127, str(error)
    return done.returncode, done.stderr.strip()


def nameservers(path: Path = Path("/etc/resolv.conf")) -> tuple[str, ...]:
    """IPv4 name servers of the host that containers ask directly; those on loopback the engine asks itself."""
    try:
        lines = path.read_text(errors="replace").splitlines()
    except OSError:
        return ()
    found = []
    for line in lines:
        words = line.split()
        if len(words) < 2 or words[0] != "nameserver":
            continue
        try:
            address = ipaddress.ip_address(words[1])
        except ValueError:
            continue
        if address.version == 4 and not address.is_loopback:
            found.append(str(address))
    return tuple(sorted(set(found)))


def chains(servers: Sequence[str]) -> str:
    """The chains as `iptables-restore --noflush` takes them: they replace their older selves in one step."""
    return "\n".join(["*filter", f":{INPUT} - [0:0]", f":{FORWARD} - [0:0]", *_rules(servers), "COMMIT", ""])


def _rules(servers: Sequence[str]) -> Iterator[str]:
    refuse = "-j REJECT --reject-with icmp-admin-prohibited"
    for chain in (INPUT, FORWARD):
        yield f"-A {chain} -m conntrack --ctstate RELATED,ESTABLISHED -j RETURN"
        for server in servers:
            for protocol in ("udp", "tcp"):
                yield f"-A {chain} -d {server} -p {protocol} --dport 53 -j RETURN"
    yield f"-A {INPUT} {refuse}"
    yield f"-A {FORWARD} -j {PEERS}"
    yield f"-A {FORWARD} -o {BRIDGES} {refuse}"
    for network in PRIVATE:
        yield f"-A {FORWARD} -d {network} {refuse}"
    yield f"-A {FORWARD} -p tcp --dport 25 {refuse}"


class Firewall:
    """The rules on this machine. Where they cannot be set, `problem` says why and nothing fails."""

    def __init__(self, runner: Runner = run, servers: Callable[[], Sequence[str]] = nameservers) -> None:
        self._run = runner
        self._servers = servers
        self._lock = threading.Lock()
        self.problem = ""

    def assert_rules(self) -> bool:
        """Make the chains be there, whole and first; repeatable. False where that is not possible."""
        with self._lock:
            if self._run is run and shutil.which("iptables") is None:
                self.problem = "iptables is not installed"
                return False
            self._iptables("-N", PEERS)
            status, said = self._run(("iptables-restore", "-w", "30", "--noflush"), chains(self._servers()))
            if status:
                self.problem = f"iptables-restore: {said}"
                return False
            after_docker = "DOCKER-USER" if self._iptables("-n", "-L", "DOCKER-USER")[0] == 0 else "FORWARD"
            placed = [self._jump("INPUT", INPUT), self._jump(after_docker, FORWARD)]
            self._refuse_ipv6()
            self.problem = "" if all(placed) else "the rules cannot be placed first"
            return all(placed)

    def usable(self) -> bool:
        """Whether rules can be set at all; changes nothing, `problem` says why not."""
        with self._lock:
            status, said = self._iptables("-n", "-L", "INPUT")
            self.problem = f"iptables: {said or 'not usable'}" if status else ""
            return not status

    def _iptables(self, *arguments: str) -> tuple[int, str]:
        return self._run(("iptables", "-w", "30", *arguments), "")

    def _jump(self, chain: str, to: str) -> bool:
        rule = ("-i", BRIDGES, "-j", to)
        return self._iptables("-C", chain, *rule)[0] == 0 or self._iptables("-I", chain, "1", *rule)[0] == 0

    def _refuse_ipv6(self) -> None:
        """Leases have no IPv6; the link-local address of a bridge must not be a way to the host either."""
        for chain in ("INPUT", "FORWARD"):
            rule = ("-i", BRIDGES, "-j", "DROP")
            if self._run(("ip6tables", "-w", "30", "-C", chain, *rule), "")[0]:
                self._run(("ip6tables", "-w", "30", "-I", chain, "1", *rule), "")

    def admit(self, bridge: str) -> None:
        """Let containers on one bridge talk to each other; repeatable."""
        with self._lock:
            rule = ("-i", bridge, "-o", bridge, "-j", "ACCEPT")
            if self._iptables("-C", PEERS, *rule)[0]:
                self._iptables("-A", PEERS, *rule)

    def forget(self, bridge: str) -> None:
        """Take back what `admit` did; repeatable."""
        with self._lock:
            rule = ("-i", bridge, "-o", bridge, "-j", "ACCEPT")
            while self._iptables("-D", PEERS, *rule)[0] == 0:
                pass
