"""What commands print: tables for people, JSON, YAML and names for programs. Data on stdout, messages on stderr."""

import json
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])

MIN_LAST = 24
"""A last column that has fewer columns of a terminal is not wrapped."""

FORMATS = ("table", "json", "yaml", "name")


def output_option(function: F) -> F:
    """Add `-o/--output table|json|yaml|name` as parameter `output`."""
    return click.option(
        "-o",
        "--output",
        type=click.Choice(FORMATS),
        default="table",
        envvar="GPUBID_OUTPUT",
        show_default=True,
        help="How to print the answer.",
    )(function)


def columns(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Text of a table with aligned columns, two spaces apart; numbers keep their own form.

    On a terminal that is too narrow the last column is wrapped between words; where that is not enough each row is a
    paragraph of `HEADER  value` lines instead. No id is cut.
    """
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(headers), *cells]) for i in range(len(headers))]
    lines = [list(headers), *cells]
    if rows and sys.stdout.isatty():
        room = shutil.get_terminal_size().columns - sum(widths[:-1]) - 2 * (len(widths) - 1)
        longest = max(len(word) for line in lines for word in (line[-1].split() or [""]))
        if room < min(widths[-1], max(longest, MIN_LAST)):
            return "\n\n".join(describe(dict(zip(headers, row, strict=True))) for row in cells)
        lines = [part for line in lines for part in _wrapped(line, room)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def _wrapped(line: list[str], room: int) -> list[list[str]]:
    """A line whose last cell goes on below itself where it is wider than `room`."""
    if len(line[-1]) <= room:
        return [line]
    first, *more = textwrap.wrap(line[-1], room, break_long_words=False, break_on_hyphens=False)
    return [[*line[:-1], first], *([*("" for _ in line[:-1]), text] for text in more)]


def emit(
    output: str,
    data: Any,
    *,
    headers: Sequence[str] = (),
    rows: Sequence[Sequence[object]] = (),
    names: Sequence[str] = (),
    text: str = "",
) -> None:
    """Print `data` (JSON-able) in the asked form; `rows` or `text` are for people, `names` one id a line."""
    if output == "json":
        click.echo(json.dumps(data, indent=2, ensure_ascii=False))
    elif output == "yaml":
        import yaml

        click.echo(yaml.safe_dump(data, sort_keys=False, allow_unicode=True).rstrip())
    elif output == "name":
        for name in names:
            click.echo(name)
    elif text:
        click.echo(text)
    else:
        click.echo(columns(headers, rows))


def describe(facts: Mapping[str, object]) -> str:
    """Text of `name  value` lines, values aligned."""
    width = max((len(name) for name in facts), default=0)
    return "\n".join(f"{name.ljust(width)}  {value}" for name, value in facts.items())


def say(message: str) -> None:
    """A message for a person, on standard error."""
    click.echo(message, err=True)


def colour() -> bool:
    """True where colour is wanted: a terminal, and NO_COLOR unset or empty."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


def credits(micro: int | str) -> str:
    """Micro-units as credits with six digits, exact: `1.500000`."""
    value = int(micro)
    sign = "-" if value < 0 else ""
    value = abs(value)
    return f"{sign}{value // 1_000_000}.{value % 1_000_000:06d}"
