"""`gpubid sdl`: check files, say what they ask of the market, print the schema for editors."""

import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.output import columns, describe, emit, output_option, say

if TYPE_CHECKING:
    from tenant.sdl import Problem, Sdl

MOST_BYTES: Final = 1_048_576


@click.group()
def sdl() -> None:
    """Check and explain SDL files."""


def read_source(file: str) -> bytes:
    """The bytes of a file, or of standard input for `-`. Raises CommandFailed."""
    try:
        if file == "-":
            return sys.stdin.buffer.read(MOST_BYTES)
        with open(file, "rb") as stream:  # noqa: PTH123  the path is a word of the user's, also /dev/fd/63
            return stream.read(MOST_BYTES)
    except OSError as error:
        raise CommandFailed(f"{file}: {error.strerror}", Exit.USAGE, fix="give the path of an SDL file") from None


def load(file: str, *, strict: bool = False) -> "Sdl":
    """Parse a file for a command; warnings go to standard error. Raises CommandFailed with every error and its line."""
    from tenant.sdl import SdlRefused, as_text, parse

    try:
        parsed = parse(read_source(file), strict=strict)
    except SdlRefused as refused:
        text = "\n\n".join(as_text(problem, refused.source, file) for problem in (*refused.errors, *refused.warnings))
        raise CommandFailed(
            f"{file} is refused\n{text}", fix="mend the file, then `gpubid sdl check` it", code="sdl_refused"
        ) from None
    for problem in parsed.warnings:
        say(as_text(problem, parsed.source, file))
    return parsed


def _checked(file: str, data: bytes, strict: bool) -> tuple[dict[str, Any], str]:
    """The JSON answer for a file, and the text of its problems."""
    from tenant.sdl import SdlRefused, as_json, as_text, parse

    errors: tuple[Problem, ...] = ()
    line: dict[str, Any] = {"file": file, "accepted": True, "hash": None, "groups": None, "manifest": None}
    try:
        parsed = parse(data, strict=strict)
        line |= {"hash": parsed.hash, "groups": parsed.groups, "manifest": parsed.manifest}
        warnings, source = parsed.warnings, parsed.source
    except SdlRefused as refused:
        line["accepted"] = False
        errors, warnings, source = refused.errors, refused.warnings, refused.source
    line |= {"errors": [as_json(p) for p in errors], "warnings": [as_json(p) for p in warnings]}
    return line, "\n".join(as_text(problem, source, file) for problem in (*errors, *warnings))


@sdl.command(short_help="Check files: what is wrong, where, and how to mend it.")
@click.argument("files", nargs=-1, required=True, metavar="FILE...")
@click.option("--strict", is_flag=True, help="Refuse also what the reference only ignores.")
@output_option
def check(files: tuple[str, ...], strict: bool, output: str) -> None:
    """Check each FILE (- is standard input): 0 all accepted, 1 some refused, 2 a file cannot be read."""
    sources = [(file, read_source(file)) for file in files]
    lines = []
    for file, data in sources:
        line, text = _checked(file, data, strict)
        lines.append(line)
        if output == "json":
            click.echo(json.dumps(line, ensure_ascii=False))
        elif output == "table":
            if text:
                click.echo(text)
            click.echo(f"{file}: accepted, hash {line['hash']}" if line["accepted"] else f"{file}: refused")
    if output == "yaml":
        emit(output, lines)
    elif output == "name":
        emit(output, lines, names=[line["file"] for line in lines if line["accepted"]])
    if not all(line["accepted"] for line in lines):
        raise SystemExit(int(Exit.FAILURE))


@sdl.command()
@click.argument("file")
@click.option("--strict", is_flag=True, help="Refuse also what the reference only ignores.")
@output_option
def explain(file: str, strict: bool, output: str) -> None:
    """Say what FILE (- is standard input) asks of the market."""
    from tenant.sdl.explain import HEADERS, facts, rows, words

    found = facts(load(file, strict=strict))
    parts = [describe({"hash": found["hash"]})]
    for group in found["groups"]:
        parts.append("\n".join(words(group)) + "\n\n" + columns(HEADERS, rows(group)))
    if found["obstacle"]:
        parts.append(f"This market cannot serve it: {found['obstacle']['message']}\n  → {found['obstacle']['fix']}")
    emit(output, found, text="\n\n".join(parts), names=[group["name"] for group in found["groups"]])


@sdl.command()
def schema() -> None:
    """Print the JSON Schema (draft-07) of an SDL, for editors."""
    from tenant.sdl.schema import SCHEMA

    click.echo(json.dumps(SCHEMA, indent=2))
