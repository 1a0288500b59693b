"""The operator's commands, as they are typed."""

from pathlib import Path

from click.testing import CliRunner

from ledger.cli.failure import exit_code_of
from provider.cli.provider import provider
from provider.pricing import parse


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
    assert {"start", "prices", "leases", "release"} <= set(provider.commands)
