"""The house rules that no linter knows: sizes, purity, documentation."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("ledger", "marketplace", "provider", "tenant")
PURE = ("ledger/protocol", "ledger/machine", "marketplace/protocol", "marketplace/market", "tenant/sdl")
TOP_LEVEL = {
    "pyproject.toml", "README.md", "marketplace", "provider", "tenant", "ledger", "tests", "docker-compose.yml", "Dockerfile",
    "Makefile", "LICENSE", "CHANGELOG.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "requirements.lock", "requirements-dev.lock",
    "requirements-build.lock", ".ci", ".gitignore", ".dockerignore",
}  # fmt: skip
MODULE_LINES = 500
FUNCTION_LINES = 70
VAGUE = {"util", "utils", "common", "helpers", "helper", "base", "misc"}


def sources(*folders: str) -> list[Path]:
    """Python files below the folders, sorted."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts)


def functions(path: Path) -> Iterator[tuple[str, ast.FunctionDef | ast.AsyncFunctionDef]]:
    """Every function of a module with its place."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield f"{path.relative_to(ROOT)}:{node.lineno} {node.name}", node


def code_lines(node: ast.AST) -> int:
    """Lines of a function without its docstring."""
    assert isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    doc = ast.get_docstring(node, clean=False)
    return (node.end_lineno or 0) - node.lineno + 1 - (doc.count("\n") + 1 if doc else 0)


def test_modules_are_short() -> None:
    """No module is over 500 lines, tests included."""
    long = [
        f"{p.relative_to(ROOT)}: {n}"
        for p in sources(*PACKAGES, "tests")
        if (n := len(p.read_text().splitlines())) > MODULE_LINES
    ]
    assert not long


def test_functions_are_short() -> None:
    """No function is over 70 lines."""
    long = [
        f"{place}: {n}"
        for p in sources(*PACKAGES, "tests")
        for place, node in functions(p)
        if (n := code_lines(node)) > FUNCTION_LINES
    ]
    assert not long


def test_nothing_stray_at_the_top() -> None:
    """The top level holds the four packages and the files that tools expect there."""
    generated = {".git", ".venv", "build", ".import_linter_cache", ".hypothesis", ".pytest_cache", "__pycache__"}
    stray = {path.name for path in ROOT.iterdir()} - TOP_LEVEL - generated
    assert not {name for name in stray if not name.endswith(".egg-info")}


def test_names_say_something() -> None:
    """No module or folder has a name that could hold anything."""
    vague = [str(p.relative_to(ROOT)) for p in sources(*PACKAGES, "tests") if VAGUE & {p.stem, *p.relative_to(ROOT).parts[:-1]}]
    assert not vague


@pytest.mark.parametrize("path", sources(*PURE), ids=lambda path: str(path.relative_to(ROOT)))
def test_pure_rooms_have_no_float(path: Path) -> None:
    """In the pure rooms there is no float, no true division and no loop over a bare set."""
    for node in ast.walk(ast.parse(path.read_text())):
        place = f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"
        if isinstance(node, ast.Constant):
            assert not isinstance(node.value, float), f"{place} a float"
        if isinstance(node, ast.Name) and not path.is_relative_to(ROOT / "tenant"):
            assert node.id != "float", f"{place} names float"
        if isinstance(node, ast.BinOp | ast.AugAssign) and isinstance(node.op, ast.Div):
            raise AssertionError(f"{place} divides with /")
        if isinstance(node, ast.For | ast.comprehension):
            assert not isinstance(node.iter, ast.Set | ast.SetComp), f"{place} iterates a set"


def test_public_things_are_documented() -> None:
    """Every public function and class of the packages has a docstring."""
    bare = []
    for path in sources(*PACKAGES):
        tree = ast.parse(path.read_text())
        if not ast.get_docstring(tree) and path.read_text().strip():
            bare.append(f"{path.relative_to(ROOT)}: module")
        for node in tree.body:
            named = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            if named and not node.name.startswith("_") and not ast.get_docstring(node):
                bare.append(f"{path.relative_to(ROOT)}:{node.lineno} {node.name}")
    assert not bare


def test_every_test_says_what_is_true() -> None:
    """Every test has a docstring."""
    bare = [
        place
        for p in sources("tests")
        for place, node in functions(p)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert not bare


def test_every_code_event_and_parameter_is_documented() -> None:
    """The package READMEs name every code, event and parameter."""
    from ledger.machine.params import LEDGER_PARAMETERS
    from ledger.protocol.errors import Code
    from ledger.protocol.events import LEDGER_EVENTS
    from marketplace.market.module import Market
    from marketplace.protocol.errors import MarketCode
    from marketplace.protocol.events import MARKET_EVENTS

    ledger = (ROOT / "ledger/README.md").read_text()
    market = (ROOT / "marketplace/README.md").read_text()
    missing = [c.name for c in Code if c.name not in ledger] + [c.name for c in MarketCode if c.name not in market]
    missing += [e.__name__ for e in LEDGER_EVENTS if e.__name__ not in ledger] + [
        e.__name__ for e in MARKET_EVENTS if e.__name__ not in market
    ]
    missing += [p for p in LEDGER_PARAMETERS if p not in ledger] + [p for p in Market().parameters if p not in market]
    assert not missing


def test_every_setting_is_documented() -> None:
    """Every GPUBID_ variable that the code reads stands in a README."""
    named = {name for p in sources(*PACKAGES) for name in re.findall(r"(?<![_A-Z])GPUBID_[A-Z_]+[A-Z]", p.read_text())}
    pages = "".join(p.read_text() for p in ROOT.rglob("README.md") if ".venv" not in p.parts and "build" not in p.parts)
    assert not {name for name in named if name not in pages}


def test_nothing_of_a_machine_or_registry_is_named() -> None:
    """No file names a registry's host, or the path of the machine it was written on."""
    hosts = re.compile(
        "|".join(("pypi" + r"\.org", "python" + "hosted", "registry" + r"\.npmjs", "deb" + r"\.debian", "proxy" + r"\.golang"))
    )
    places = re.compile("|".join((r"(?<![\w.])/work/" + "(main|shared|steering)", r"/root/\.py" + "env")))
    suspects = [
        p
        for p in ROOT.rglob("*")
        if p.is_file() and not {".git", ".venv", "build", "__pycache__", ".hypothesis"} & set(p.relative_to(ROOT).parts)
    ]
    found = []
    for path in suspects:
        text = path.read_text(errors="ignore")
        if hosts.search(text) or places.search(text):
            found.append(str(path.relative_to(ROOT)))
    assert not found


def test_no_unfinished_marks() -> None:
    """No mark of unfinished work is left."""
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X|HA" + r"CK)\b|raise NotImplemented" + "Error")
    assert not [str(p.relative_to(ROOT)) for p in sources(*PACKAGES, "tests") if marks.search(p.read_text())]
