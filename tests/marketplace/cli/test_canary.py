"""Secrets stay where they belong: seeds and a passphrase are looked for in every answer, line, file and process."""

import base64
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx
import pytest

from ledger import keystore
from ledger.cli.dispatch import cli
from ledger.keystore import Keystore
from tests.marketplace.cli.typist import Typist
from tests.processes import Program, development_node

pytestmark = [pytest.mark.process, pytest.mark.timeout(900)]

WORD = "canary-passphrase-51c2"
SEED = bytes(range(100, 132))
DAEMONS = {("node", "start"), ("provider", "start"), ("tenant", "serve")}
"""Commands that do not end; two of them run here as processes."""

STREAMS = {"/v1/events", "/v1/export"}


def forms(seed: bytes) -> list[bytes]:
    """How a seed may be written."""
    plain = [seed, seed.hex().encode(), seed.hex().upper().encode(), base64.b64encode(seed), base64.urlsafe_b64encode(seed)]
    return [form.rstrip(b"=") for form in plain] + [repr(seed)[2:-1].encode()]


def clean(where: str, data: bytes | str, secrets: list[bytes]) -> None:
    """Fail where any secret is in the data."""
    raw = data.encode(errors="surrogateescape") if isinstance(data, str) else data
    for secret in secrets:
        assert secret not in raw, f"a secret shows in {where}"


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Every command of the command line."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


def operations(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """(method, path with something in its places) of an OpenAPI document."""
    for path, found in document["paths"].items():
        if path not in STREAMS:
            for method in found:
                yield method.upper(), re.sub(r"\{[^}]+\}", "1", path)


def ask_everything(url: str, headers: dict[str, str], secrets: list[bytes]) -> int:
    """Call each operation with and without a body that holds the secrets' neighbours; how many there were."""
    with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
        document = client.get("/openapi.json").json()
        asked = [*operations(document), ("GET", "/docs"), ("GET", "/metrics"), ("GET", "/openapi.json"), ("GET", "/nothing")]
        for method, path in asked:
            for options in ({}, {"content": b'{"x":'}, {"json": {"address": "x", "groups": []}}):
                answer = client.request(method, path, **options)  # type: ignore[arg-type]
                clean(f"{method} {path}", answer.content + repr(answer.headers).encode(), secrets)
    return len(asked)


def of_process(program: Program, secrets: list[bytes]) -> None:
    """Its arguments, its environment and all it has written so far."""
    folder = Path("/proc") / str(program.process.pid)
    for name in ("cmdline", "environ"):
        clean(f"{name} of {program.arguments}", (folder / name).read_bytes(), secrets)
    clean(f"the output of {program.arguments}", program.stdout + program.stderr, secrets)


def test_no_secret_shows_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither passphrase nor any seed shows in an answer, a command's output, a log, a process or a file but its own."""
    monkeypatch.setattr(keystore, "ARGON2", {"lanes": 1, "memory_kib": 64, "time": 1})
    monkeypatch.chdir(tmp_path)  # a command that writes a file writes it here
    word = tmp_path / "word"
    word.write_text(WORD + "\n")
    word.chmod(0o600)
    home = tmp_path / "home"
    Keystore(home / "keys").add("default", seed=SEED, passphrase=WORD)
    with development_node(tmp_path) as (node, url):
        keys = Keystore(tmp_path / "node" / "node" / "keys")
        secrets = [WORD.encode(), *forms(SEED)]
        for name in ("node", "faucet"):
            secrets += forms(keys.unlock(name, None))
        user = Typist(home, url, GPUBID_PASSPHRASE_FILE=str(word), GPUBID_DOCKER="unix:///nonexistent/docker.sock")
        user.ok("account", "faucet")
        user.ok("account", "transfer", user.json("keys", "show")["address"], "1")
        serve = ["tenant", "serve", "--node", url, "--listen", "127.0.0.1:0"]
        with Program(serve, home, log=tmp_path / "logs", GPUBID_PASSPHRASE_FILE=str(word)) as gateway:
            own = gateway.line("ready ").split()[1]
            bearer = (home / "tenant" / "api.key").read_text().strip()
            assert ask_everything(own, {"authorization": f"Bearer {bearer}"}, [*secrets, bearer.encode()]) > 10
            assert ask_everything(url, {}, secrets) > 30
            _type_everything(user, secrets)
            of_process(gateway, [*secrets, bearer.encode()])
            of_process(node, secrets)
        clean("the logs", gateway.stdout + gateway.stderr + node.stdout + node.stderr, secrets)
    for path in tmp_path.rglob("*"):
        # The node's own keys are for a machine of its operator: they stand in their files and nowhere else.
        if path.is_file() and path != word and path.parent != tmp_path / "node" / "node" / "keys":
            clean(str(path), path.read_bytes(), secrets)


def _type_everything(user: Typist, secrets: list[bytes]) -> None:
    """Each command with --help, without arguments, and with senseless ones, in each form of output."""
    seen = 0
    for path, command in commands(cli):  # type: ignore[arg-type]
        if path in DAEMONS or path == ("completion",):
            continue
        seen += 1
        words = ["x" for p in command.params if isinstance(p, click.Argument) and p.required]
        formats = [["-o", "json"]] if any(p.name == "output" for p in command.params) else []
        for arguments in (["--help"], [], words, *([*words, *f] for f in formats)):
            done = user.run(*path, *arguments)
            clean(f"gpubid {' '.join([*path, *arguments])}", done.stdout + done.stderr, secrets)
    assert seen > 40
