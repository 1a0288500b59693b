"""The JSON Schema against the parser: an independent validator says the same as strict mode."""

import copy
import json
import random
from typing import Any

import jsonschema_rs
import pytest
import yaml

from tenant.sdl import SdlRefused, parse
from tenant.sdl.schema import SCHEMA
from tests.tenant.sdl.fuzz import broken_tree
from tests.tenant.sdl.samples import ALL, VECTORS

VALIDATOR = jsonschema_rs.Draft7Validator(json.loads(json.dumps(SCHEMA)))


def codes(text: str, *, strict: bool) -> set[str]:
    """Codes of all errors; empty where it is accepted."""
    try:
        parse(text, strict=strict)
    except SdlRefused as refused:
        return {p.code for p in refused.errors}
    return set()


def test_schema_is_draft_7() -> None:
    """The schema is itself valid, and is JSON."""
    assert jsonschema_rs.meta.is_valid(SCHEMA)


@pytest.mark.parametrize("name", sorted(ALL))
def test_samples_validate(name: str) -> None:
    """What strict accepts, the schema accepts."""
    assert VALIDATOR.is_valid(yaml.safe_load(ALL[name]))


def _mappings(tree: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths of all mappings of a tree."""
    if isinstance(tree, dict):
        return [path, *(p for k, v in tree.items() for p in _mappings(v, (*path, k)))]
    return [p for i, v in enumerate(tree) for p in _mappings(v, (*path, i))] if isinstance(tree, list) else []


def _wide(path: tuple[Any, ...]) -> tuple[Any, ...]:
    """The path with a star for the names that a file chooses itself."""
    named = 2 if path[:1] == ("profiles",) else 1
    return tuple("*" if i == named and path[0] in ("services", "deployment", "profiles") else p for i, p in enumerate(path))


OPEN = {
    ("services",),
    ("profiles", "compute"),
    ("profiles", "placement"),
    ("deployment",),
    ("deployment", "*"),
    ("endpoints",),
    ("profiles", "placement", "*", "attributes"),
    ("profiles", "placement", "*", "pricing"),
    ("services", "*", "params", "storage"),
}


@pytest.mark.parametrize("name", sorted(ALL))
def test_unknown_keys_are_refused_everywhere(name: str) -> None:
    """A key that nobody knows is refused by schema and strict mode, in every mapping with fixed keys."""
    tree = yaml.safe_load(ALL[name])
    tried = 0
    for path in _mappings(tree):
        if _wide(path) in OPEN:
            continue
        changed = copy.deepcopy(tree)
        node = changed
        for part in path:
            node = node[part]
        node["zzz"] = {}
        assert not VALIDATOR.is_valid(changed), path
        assert codes(json.dumps(changed), strict=True), path
        tried += 1
    assert tried > 10


def test_strict_is_parser_and_schema() -> None:
    """On 3,000 broken trees: strict accepts just what the default accepts and the independent validator finds valid."""
    rng = random.Random(3)
    both = 0
    for _ in range(3000):
        text = broken_tree(rng).decode()
        try:
            tree = json.loads(text)
        except ValueError:
            continue
        if '"<<"' in text or "1e+308" in text:
            continue
        default, strict = codes(text, strict=False), codes(text, strict=True)
        if default:
            assert strict, text
            continue
        both += 1
        assert (not strict) == VALIDATOR.is_valid(tree), (text, strict)
    assert both > 50


@pytest.mark.skipif(not VECTORS.is_dir(), reason="the vectors are not beside this checkout (../shared/vectors/akash-sdl)")
def test_schema_agrees_on_real_files() -> None:
    """On the accepted real files, strict mode and the independent validator agree."""
    for name in json.loads((VECTORS / "corpus-expected.json").read_text()):
        text = (VECTORS / "corpus" / name).read_text()
        if not codes(text, strict=False):
            tree = json.loads(json.dumps(yaml.safe_load(text), default=str))
            assert (not codes(text, strict=True)) == VALIDATOR.is_valid(tree), name
