"""The dispatcher and the key commands, as they are typed."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path

import click
import pytest

from ledger.cli.dispatch import cli
from ledger.cli.output import columns

SECRET = "canary-passphrase-7f3a"


def gpubid(*arguments: str, home: Path, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the command with a home of its own and no terminal."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("GPUBID_")} | {"GPUBID_HOME": str(home)} | environment
    program = Path(sys.executable).parent / "gpubid"
    return subprocess.run(
        [str(program), *arguments], capture_output=True, text=True, env=env, input=stdin, timeout=120, check=False
    )


def test_every_entry_point_is_a_command() -> None:
    """Each command that pyproject names can be loaded and has a one-line help."""
    for entry in entry_points(group="gpubid.commands"):
        command = entry.load()
        assert isinstance(command, click.Command), entry.name
        assert command.get_short_help_str(), entry.name


def commands(group: click.Group, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command, int]]:
    """Every command with its words, and the columns that a terminal of 80 leaves for its summary."""
    names = group.list_commands(click.Context(group))
    for name in names:
        command = group.get_command(click.Context(group), name)
        assert command is not None, name
        yield (*path, name), command, 80 - 6 - max(len(other) for other in names)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


def test_no_summary_is_cut() -> None:
    """What a command does is said whole in lists of commands, on a terminal of 80 columns."""
    cut = [" ".join(words) for words, command, room in commands(cli) if command.get_short_help_str(room).endswith("...")]
    assert cut == []


def test_what_the_system_refuses_is_told(tmp_path: Path) -> None:
    """A home that cannot be made is named with what to do; no traceback."""
    (tmp_path / "file").write_text("")
    done = gpubid("keys", "list", home=tmp_path / "file" / "home")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"gpubid: {tmp_path / 'file'}")
    assert "→" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_table_fits_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a narrow terminal rows become paragraphs that cut nothing; elsewhere, and where there is room, it is a table."""
    rows = [("gpu1" + "q" * 38, "vm", "1"), ("gpu1" + "p" * 38, "other", "2")]
    table = columns(("PROVIDER", "HOST", "COST"), rows)
    assert len(table.splitlines()) == 3
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    for width, lines in (("200", 3), ("40", 7)):
        monkeypatch.setenv("COLUMNS", width)
        text = columns(("PROVIDER", "HOST", "COST"), rows)
        assert len(text.splitlines()) == lines
        assert all(row[0] in text for row in rows)
    assert columns(("PROVIDER", "HOST"), []) == "PROVIDER  HOST"
    words = columns(("CHECK", "FOUND"), [("engine", "a long tale of many words that goes on for a while"), ("disk", "ok")])
    assert words.splitlines()[1:3] == ["engine  a long tale of many words that", "        goes on for a while"]
    assert len(words.splitlines()) == 4


def test_help_imports_no_framework(tmp_path: Path) -> None:
    """`gpubid --help` loads neither web nor database nor container libraries: it must be quick at every TAB."""
    code = (
        "import sys; from ledger.cli import dispatch; sys.argv=['gpubid','--help']\n"
        "try: dispatch.main()\n"
        "except SystemExit: pass\n"
        "heavy = {'fastapi','starlette','sqlalchemy','pydantic','docker','httpx','uvicorn','pynvml'}\n"
        "heavy |= {'joserfc','nacl','cryptography'}\n"
        "print('LOADED', sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)

    assert "LOADED []" in done.stdout
    assert "deploy" in done.stdout


def test_keys_are_made_listed_and_kept(tmp_path: Path) -> None:
    """A key is made from a passphrase file, listed, and its passphrase shows up nowhere."""
    word = tmp_path / "word"
    word.write_text(SECRET)
    word.chmod(0o600)

    made = gpubid("keys", "add", "alice", "-o", "json", home=tmp_path / "h", GPUBID_PASSPHRASE_FILE=str(word))
    listed = gpubid("keys", "list", "-o", "name", home=tmp_path / "h")
    shown = gpubid("keys", "show", "alice", "--address", home=tmp_path / "h")

    assert made.returncode == 0, made.stderr
    assert listed.stdout == "alice\n"
    assert shown.stdout.strip() == json.loads(made.stdout)["address"]
    written = "".join(path.read_text() for path in (tmp_path / "h").rglob("*") if path.is_file())
    assert SECRET not in made.stdout + made.stderr + written


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("keys", "add", "bob"), 2, "GPUBID_PASSPHRASE_FILE"),
        (("keys", "show", "nobody"), 3, "gpubid keys add nobody"),
        (("keys", "add", "Bad Name", "--no-passphrase"), 2, "a-z"),
        (("keys", "frobnicate"), 2, "No such command"),
        (("frobnicate",), 2, "No such command"),
        (("keys", "add", "--recover", "--no-passphrase", "x"), 2, "words"),
    ],
)
def test_mistakes_are_answered(tmp_path: Path, arguments: tuple[str, ...], code: int, says: str) -> None:
    """A mistake ends with its documented exit code and a line that says what to do, never a traceback."""
    done = gpubid(*arguments, home=tmp_path / "h", stdin="one two three\n")

    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_errors_are_json_where_json_was_asked(tmp_path: Path) -> None:
    """With `-o json` an error is a JSON object on standard error."""
    done = gpubid("keys", "show", "nobody", "-o", "json", home=tmp_path / "h")

    assert json.loads(done.stderr)["fix"] == "make one: gpubid keys add nobody"


def test_completion_prints_a_script(tmp_path: Path) -> None:
    """Each shell gets a script that calls back into gpubid."""
    for shell in ("bash", "zsh", "fish"):
        done = gpubid("completion", shell, home=tmp_path / "h")
        assert "_GPUBID_COMPLETE" in done.stdout


def test_optimised_python_is_refused(tmp_path: Path) -> None:
    """Under `python -O` assertions are gone, so the program refuses to run."""
    done = subprocess.run(
        [sys.executable, "-O", "-c", "from ledger.cli.dispatch import main; main()"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 1
    assert "python -O" in done.stderr
