"""The reference's own answers: fixtures, refusals, real files and made ones, where they lie beside the checkout."""

import json
from typing import Any

import pytest

from tenant.sdl import Sdl, SdlRefused, parse
from tests.tenant.sdl.samples import VECTORS

pytestmark = pytest.mark.skipif(
    not VECTORS.is_dir(), reason="the vectors are not beside this checkout (../shared/vectors/akash-sdl)"
)

DELIBERATE = {
    "gpu vendor": "a vendor other than nvidia, amd and intel is refused; the reference takes it for any GPU of nvidia",
}
"""Kinds of files where we differ from the reference on purpose, each with its reason."""

FIXTURES = VECTORS / "fixtures"


def read(source: bytes | str, *, strict: bool = False) -> Sdl | SdlRefused:
    """The SDL, or its refusal."""
    try:
        return parse(source, strict=strict)
    except SdlRefused as refused:
        return refused


def test_fixtures_give_the_golden_groups_and_manifest() -> None:
    """All 15 inputs give the reference's groups and manifest."""
    folders = sorted((FIXTURES / "input").glob("v2.*/*"))
    assert len(folders) == 15
    for folder in folders:
        sdl = parse((folder / "input.yaml").read_bytes())
        golden = FIXTURES / "output-fixtures" / folder.parent.name / folder.name
        assert sdl.manifest == json.loads((golden / "manifest.json").read_text()), folder
        assert sdl.groups == json.loads((golden / "group-specs.json").read_text()), folder


def test_known_hash() -> None:
    """The one hash that the reference document names is ours."""
    sdl = parse((FIXTURES / "input" / "v2.0" / "gpu-basic" / "input.yaml").read_bytes())
    assert sdl.hash == "b388e6d97d15c37fc87ba0e9a555250941f7e1a04be768984cfa829a9500be47"


def test_invalid_files_are_refused_with_a_place() -> None:
    """All 21 wrong files are refused; each error has a path, a line and a fix."""
    files = sorted((FIXTURES / "input" / "invalid").glob("*.yaml"))
    assert len(files) == 21
    for file in files:
        refused = read(file.read_bytes())
        assert isinstance(refused, SdlRefused), file
        for problem in refused.errors:
            assert problem.path, (file, problem)
            assert problem.line >= 1
            assert problem.fix, (file, problem)


def test_schema_only_files_are_warned_of_or_refused_when_strict() -> None:
    """What the reference only logs is a warning, and an error in strict mode. An AMD card is asked like any other."""
    files = sorted((FIXTURES / "input" / "schema-only-invalid").glob("*.yaml"))
    assert len(files) == 6
    for file in files:
        sdl = read(file.read_bytes())
        strict = read(file.read_bytes(), strict=True)
        assert isinstance(sdl, Sdl), file
        if file.stem == "invalid-gpu-vendor":
            assert isinstance(strict, Sdl)
            assert sdl.groups[0]["resources"][0]["resource"]["gpu"]["attributes"][0]["key"] == "vendor/amd/model/rx7900xtx"
        else:
            assert sdl.warnings, file
            assert isinstance(strict, SdlRefused), file


def test_corpus() -> None:
    """Verdict equal on 199 real files, hash equal on the 187 that are accepted."""
    expected: dict[str, dict[str, Any]] = json.loads((VECTORS / "corpus-expected.json").read_text())
    assert len(expected) == 199
    accepted = 0
    for name, answer in expected.items():
        got = read((VECTORS / "corpus" / name).read_bytes())
        assert isinstance(got, Sdl) == (answer["reference"] == "accept"), (name, answer["error"], got)
        if isinstance(got, Sdl):
            accepted += 1
            assert got.hash == answer["hash"], name
    assert accepted == 187


def test_generated() -> None:
    """Verdict, groups, manifest and hash equal on 1,200 made files, but for the deliberate differences."""
    rows = [json.loads(line) for line in (VECTORS / "generated.jsonl").read_text().splitlines()]
    assert len(rows) == 1200
    differs = []
    for row in rows:
        got = read(row["yaml"])
        if isinstance(got, SdlRefused) and row["reference"] == "accept":
            assert {p.code for p in got.errors} == {"unknown_vendor"}, (row["case"], got)
            differs.append("gpu vendor")
            continue
        assert isinstance(got, Sdl) == (row["reference"] == "accept"), (row["case"], row.get("error"), got)
        if isinstance(got, Sdl):
            assert (got.hash, got.groups, got.manifest) == (row["hash"], row["groups"], row["manifest"]), row["case"]
    assert set(differs) <= set(DELIBERATE)
    assert len(differs) == 1
