"""What is wrong with a file: located, all at once, and how to mend it."""

import difflib
from collections.abc import Callable, Iterable
from typing import Any, Final, Literal

import msgspec

Path = tuple[Any, ...]
"""Keys and indexes from the root of the file to a value."""

MOST_PROBLEMS: Final = 200


class At(msgspec.Struct, frozen=True):
    """A place in the file: line and column, both from 1."""

    line: int
    column: int


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong: an error refuses the file, a warning names what will not happen."""

    code: str
    severity: Literal["error", "warning"]
    path: str
    line: int
    column: int
    message: str
    found: str = ""
    allowed: str = ""
    nearest: str = ""
    fix: str = ""


class SdlRefused(Exception):
    """The file is refused; `errors` are all reasons, `warnings` what was noticed beside them, in file order."""

    exit_code = 1

    def __init__(self, errors: tuple[Problem, ...], warnings: tuple[Problem, ...], source: str) -> None:
        self.errors = errors
        self.warnings = warnings
        self.source = source
        self.fix = errors[0].fix
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        super().__init__(f"line {errors[0].line}: {errors[0].message}{more}")


class LoweringRefused(Exception):
    """A good file that this market cannot serve: what, and what to do about it."""

    exit_code = 1

    def __init__(self, code: str, message: str, fix: str) -> None:
        super().__init__(message)
        self.code = code
        self.fix = fix


def dotted(path: Path) -> str:
    """A path as people write it: `services.web.expose[0].port`."""
    out = ""
    for part in path:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out


def nearest(word: str, known: Iterable[str]) -> str:
    """The known word that is most like this one, or nothing."""
    found = difflib.get_close_matches(word[:64], sorted(known)[:500], n=1)
    return found[0] if found else ""


def shorten(value: object) -> str:
    """What was found, short enough for a line."""
    text = str(value)
    return text if len(text) <= 60 else text[:57] + "…"


class Report:
    """Collects problems. In strict mode a warning is an error."""

    def __init__(self, strict: bool) -> None:
        self.strict = strict
        self.locate: Callable[[Path], At | None] | None = None
        """Where set, finds the place of an error by its path: checks across parts know only where the part begins."""
        self._problems: dict[tuple[str, str], Problem] = {}

    def __bool__(self) -> bool:
        return any(p.severity == "error" for p in self._problems.values())

    def error(
        self, code: str, path: Path, at: At, message: str, *, found: object = "", allowed: str = "", near: str = "", fix: str = ""
    ) -> None:
        """Note an error."""
        if self.locate is not None:
            at = self.locate(path) or at
        self._add(Problem(code, "error", dotted(path), at.line, at.column, message, shorten(found), allowed, near, fix))

    def warn(
        self, code: str, path: Path, at: At, message: str, *, found: object = "", allowed: str = "", near: str = "", fix: str = ""
    ) -> None:
        """Note a warning; dropped where an error stands at or above the same place already."""
        where = dotted(path)
        if any(p.severity == "error" and (where + ".").startswith((p.path + ".", p.path + "[")) for p in self._problems.values()):
            return
        kind: Literal["error", "warning"] = "error" if self.strict else "warning"
        self._add(Problem(code, kind, where, at.line, at.column, message, shorten(found), allowed, near, fix))

    def _add(self, problem: Problem) -> None:
        if len(self._problems) < MOST_PROBLEMS:
            self._problems.setdefault((problem.code, problem.path), problem)

    def _sorted(self, severity: str) -> tuple[Problem, ...]:
        some = (p for p in self._problems.values() if p.severity == severity)
        return tuple(sorted(some, key=lambda p: (p.line, p.column, p.path, p.code)))

    @property
    def errors(self) -> tuple[Problem, ...]:
        """All errors in file order."""
        return self._sorted("error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """All warnings in file order."""
        return self._sorted("warning")


def as_text(problem: Problem, source: str, file: str = "") -> str:
    """A problem for a terminal: where, what, the source line with a caret, what to do."""
    lines = source.splitlines()
    out = [f"{file or 'sdl'}:{problem.line}:{problem.column}: {problem.severity}: {problem.message} [{problem.code}]"]
    if 0 < problem.line <= len(lines):
        # Tabs and control characters would move the caret away from its place.
        shown = "".join(c if c.isprintable() else " " for c in lines[problem.line - 1])
        start = max(0, problem.column - 100)
        number = str(problem.line)
        out.append(f"  {number} | {shown[start : start + 160]}")
        out.append(f"  {' ' * len(number)} | {' ' * (problem.column - 1 - start)}^")
    if problem.path:
        out.append(f"  at {problem.path}")
    if problem.found:
        out.append(f"  found: {problem.found}")
    if problem.allowed:
        out.append(f"  allowed: {problem.allowed}")
    if problem.nearest:
        out.append(f"  did you mean: {problem.nearest}")
    if problem.fix:
        out.append("  → " + problem.fix.replace("\n", "\n    "))
    return "\n".join(out)


def as_json(problem: Problem) -> dict[str, object]:
    """A problem as a JSON object."""
    built: dict[str, object] = msgspec.to_builtins(problem)
    return built


def problem_body(refused: SdlRefused) -> dict[str, object]:
    """The body of an `application/problem+json` answer with status 422."""
    return {
        "type": "about:blank",
        "title": "The SDL is refused",
        "status": 422,
        "detail": str(refused),
        "code": "sdl_refused",
        "fix": refused.fix,
        "errors": [as_json(p) for p in refused.errors],
        "warnings": [as_json(p) for p in refused.warnings],
    }
