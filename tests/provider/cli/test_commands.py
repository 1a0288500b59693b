"""The operator's commands, as they are typed."""

import json
from pathlib import Path

from click.testing import CliRunner

from ledger.cli.failure import exit_code_of
from provider.cli.provider import provider
from provider.pricing import parse
from tests.marketplace.cli.typist import Typist
from tests.marketplace.node.listening import listening


def test_the_example_is_a_price_file() -> None:
    """What `provider prices` prints can be given back as a price file."""
    done = CliRunner().invoke(provider, ["prices"])

    assert done.exit_code == 0
    assert parse(done.output, "printed").prices.gpu["h100"] == "2100000"


def test_a_price_file_is_checked(tmp_path: Path) -> None:
    """`provider prices --price-file` shows what the market will see, and exits 2 where it is wrong."""
    path = tmp_path / "prices.toml"
    path.write_text("[gpu]\nh100 = 9.5\n")
    done = CliRunner().invoke(provider, ["prices", "--price-file", str(path)])
    assert "9.500000" in done.output

    path.write_text("[gpu]\nh100 = 'cheap'\n")
    done = CliRunner().invoke(provider, ["prices", "--price-file", str(path)])
    assert done.exception is not None
    assert isinstance(done.exception, Exception)
    assert exit_code_of(done.exception) == 2


def test_every_command_has_help() -> None:
    """Each command says in a line what it does."""
    for name, command in provider.commands.items():
        assert command.get_short_help_str(), name
        assert CliRunner().invoke(provider, [name, "--help"]).exit_code == 0
    assert {"start", "prices", "leases", "release", "bond", "payout"} <= set(provider.commands)


def test_a_bond_is_posted_shown_and_asked_back(tmp_path: Path) -> None:
    """What is pledged leaves the balance and is shown with what is asked; mistakes have their exit codes."""
    with listening(tmp_path / "node") as node:
        user = Typist(tmp_path / "user", node.url)
        own = user.key()
        assert user.run("provider", "bond", "show").returncode == 3
        user.ok("account", "faucet")
        assert user.json("provider", "bond", "show")["bonds"] == []
        assert user.run("provider", "bond", "withdraw", "1").returncode == 3
        register = {"type": "RegisterProvider", "endpoint": "https://127.0.0.1:1", "gateway_key": "0" * 64}
        unsigned = tmp_path / "unsigned"
        unsigned.write_text(user.ok("tx", "create", json.dumps(register | {"attributes": {}, "version": 0})))
        signed = tmp_path / "signed"
        signed.write_text(user.ok("tx", "sign", str(unsigned)))
        user.ok("tx", "send", str(signed))

        assert "pledged 5.000000" in user.ok("provider", "bond", "post", "5")
        assert user.json("account", "show")["balances"] == {"ucredit": "995000000"}
        assert "not before" in user.ok("provider", "bond", "withdraw", "2")
        assert user.run("provider", "bond", "withdraw", "6").returncode == 5
        found = user.json("provider", "bond", "show")
        assert (found["address"], found["minimum_per_gpu"]) == (own, "0")
        (bond,) = found["bonds"]
        assert (bond["balance"], bond["leaving"], bond["needed"], bond["cut"]) == ("5000000", "2000000", "0", "0")
        assert "2.000000" in user.ok("provider", "bond", "show")
        assert user.json("market", "providers")[0]["bonds"] == [bond]
        assert "0 purses paid" in user.ok("provider", "payout")
