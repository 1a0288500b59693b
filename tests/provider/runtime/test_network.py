"""The firewall's rules as text, and what happens where they cannot be set."""

from collections.abc import Sequence
from pathlib import Path

from provider.runtime.network import PRIVATE, Firewall, chains, nameservers


class Table:
    """A stand-in for iptables that remembers its rules."""

    def __init__(self) -> None:
        self.rules: list[str] = []
        self.restored: list[str] = []

    def __call__(self, command: Sequence[str], stdin: str) -> tuple[int, str]:
        if command[0] == "iptables-restore":
            self.restored.append(stdin)
            return 0, ""
        words = [word for word in command if word not in ("-w", "30")]
        verb, rule = words[1], " ".join([words[0], *(w for w in words[2:] if w != "1")])
        if verb == "-C":
            return (0 if rule in self.rules else 1), ""
        if verb in ("-I", "-A"):
            self.rules.append(rule)
        if verb == "-D":
            if rule not in self.rules:
                return 1, ""
            self.rules.remove(rule)
        return 0, ""


def test_rules_are_asserted_again_without_piling_up() -> None:
    """Asserting twice leaves one jump each; a bridge that was admitted and forgotten leaves nothing."""
    table = Table()
    firewall = Firewall(table, lambda: ("10.0.0.53",))
    for _ in range(2):
        assert firewall.assert_rules()
        firewall.admit("gb-0123456789ab")
    jumps = [rule for rule in table.rules if "-j GPUBID" in rule]
    assert jumps == ["iptables INPUT -i gb-+ -j GPUBID-INPUT", "iptables DOCKER-USER -i gb-+ -j GPUBID-FORWARD"]
    assert len([rule for rule in table.rules if "0123456789ab" in rule]) == 1
    firewall.forget("gb-0123456789ab")
    firewall.forget("gb-0123456789ab")
    assert not [rule for rule in table.rules if "0123456789ab" in rule]
    assert firewall.problem == ""


def test_what_a_container_may_not_reach_is_refused() -> None:
    """Everything private is refused after name servers and answers are let through; the host as a whole."""
    lines = chains(("10.0.0.53",)).splitlines()
    forward = [line for line in lines if line.startswith("-A GPUBID-FORWARD")]
    for network in PRIVATE:
        assert any(f"-d {network} -j REJECT" in line for line in forward)
    assert "ESTABLISHED" in forward[0]
    last_allowed = max(i for i, line in enumerate(forward) if "--dport 53" in line)
    assert last_allowed < min(i for i, line in enumerate(forward) if "REJECT" in line)
    inward = [line for line in lines if line.startswith("-A GPUBID-INPUT")]
    assert inward[-1] == "-A GPUBID-INPUT -j REJECT --reject-with icmp-admin-prohibited"
    assert lines[-1] == "COMMIT"


def test_without_iptables_nothing_fails() -> None:
    """Where rules cannot be set it is said, and everything goes on."""
    firewall = Firewall(lambda command, stdin: (4, "Permission denied (you must be root)"), lambda: ())
    assert not firewall.assert_rules()
    assert "Permission denied" in firewall.problem
    firewall.admit("gb-0")
    firewall.forget("gb-0")
    assert not firewall.usable()


def test_name_servers_on_loopback_are_the_engines_matter(tmp_path: Path) -> None:
    """Only IPv4 servers that containers ask themselves are let through."""
    path = tmp_path / "resolv.conf"
    path.write_text(
        "# x\nnameserver 127.0.0.53\nnameserver 10.0.0.2\nnameserver fe80::1\nnameserver nonsense\nnameserver\nsearch a\n"
    )
    assert nameservers(path) == ("10.0.0.2",)
    assert nameservers(tmp_path / "none") == ()
