"""`gpubid sdl check|explain|schema`."""

import json
from pathlib import Path

from click.testing import CliRunner, Result

from ledger.cli.failure import CommandFailed
from tenant.cli.sdl import sdl
from tests.tenant.sdl.samples import ADDRESS, FOLDER, WEB


def call(*words: str, data: str | None = None) -> Result:
    """Run the command."""
    return CliRunner().invoke(sdl, list(words), input=data)


def code(result: Result) -> int:
    """The exit code that the dispatcher gives."""
    return int(result.exception.exit_code) if isinstance(result.exception, CommandFailed) else result.exit_code


def test_check_accepts(tmp_path: Path) -> None:
    """Accepted files: exit 0, and a JSON line for each with hash, groups and manifest."""
    result = call("check", "-o", "json", str(FOLDER / "web.yaml"), str(FOLDER / "gpu.yaml"))
    assert result.exit_code == 0
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [set(line) for line in lines] == [
        {"file", "accepted", "hash", "groups", "manifest", "errors", "warnings"},
    ] * 2
    assert all(line["accepted"] and line["errors"] == [] and len(line["hash"]) == 64 for line in lines)
    assert lines[0]["manifest"][0]["services"][0]["name"] == "web"


def test_check_refuses(tmp_path: Path) -> None:
    """One refused file among good ones: exit 1, all lines still there; text has a caret."""
    bad = tmp_path / "bad.yaml"
    bad.write_text(WEB.replace("port: 8080", "port: 0"))
    result = call("check", "-o", "json", str(FOLDER / "web.yaml"), str(bad))
    assert result.exit_code == 1
    good, refused = (json.loads(line) for line in result.stdout.splitlines())
    assert good["accepted"]
    assert not refused["accepted"]
    assert refused["hash"] is None
    assert refused["errors"][0]["path"] == "services.web.expose[0].port"
    text = call("check", str(bad))
    assert text.exit_code == 1
    assert f"{bad}:" in text.stdout
    assert "^" in text.stdout


def test_check_strict_and_stdin() -> None:
    """Strict refuses what default warns of; - is standard input."""
    text = WEB.replace("    env:", "    cmd: [x]\n    env:", 1)
    assert call("check", "-", data=text).exit_code == 0
    assert "warning" in call("check", "-", data=text).stdout
    assert call("check", "--strict", "-", data=text).exit_code == 1


def test_usage() -> None:
    """No file, or one that cannot be read, is a usage error."""
    assert code(call("check")) == 2
    assert code(call("check", "/nowhere/x.yaml")) == 2


def test_explain() -> None:
    """Explain says limits in credits, what is asked, and what this market cannot serve."""
    result = call("explain", str(FOLDER / "gpu.yaml"))
    assert result.exit_code == 0, result.output
    for words in ("70.6", "credits an hour", "region=eu-west", "2 × nvidia a100 or nvidia h100 80Gi sxm", "data 100Gi beta3"):
        assert words in result.output, words
    facts = json.loads(call("explain", "-o", "json", "-", data=ADDRESS).stdout)
    assert facts["obstacle"]["code"] == "no_ip_leases"
    assert code(call("explain", "-", data="a: 1")) == 1


def test_schema_is_printed() -> None:
    """The schema comes as JSON."""
    assert json.loads(call("schema").stdout)["$schema"].startswith("http://json-schema.org/draft-07")
