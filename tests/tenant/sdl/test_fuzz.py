"""Broken files end in our refusal and nothing else, with bounded memory and work."""

import contextlib
import tracemalloc

import pytest

from tenant.sdl import SdlRefused, parse
from tests.tenant.sdl.fuzz import run
from tests.tenant.sdl.samples import WEB

MOST_MEMORY = 50 * 1024 * 1024


def bombs() -> dict[str, bytes]:
    """Files made to cost much."""
    laughs = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12))
    merges = "m0: &m0 {a: 1}\n" + "".join(f"m{i}: &m{i} {{<<: [{', '.join([f'*m{i - 1}'] * 20)}]}}\n" for i in range(1, 12))
    head = 'version: "2.0"\n'
    return {
        "laughs in args": (head + laughs + WEB.replace("    env:", "    args: *a11\n    env:")).encode(),
        "laughs in attributes": (head + "include: *a11\n").encode(),
        "laughs as services": (head + "services: {x: {args: &x [y]}}\n" + laughs + "profiles: *a11\n").encode(),
        "merges": (head + merges + "services: *m11\n").encode(),
        "merges in a section": (head + "services:\n  " + merges.replace("\n", "\n  ") + "\nprofiles: *m11\n").encode(),
        "merged services": ("services:\n  " + merges.replace("\n", "\n  ") + "z: {<<: *m11}\n" + head).encode(),
        "many keys": (head + "services:\n" + "".join(f"  s{i}: {{}}\n" for i in range(6000))).encode(),
        "one long word": (head + "x: " + "y" * 200_000).encode(),
        "long number": WEB.replace("0.5", "9" * 100_000).encode(),
        "big exponent": WEB.replace("0.5", "1e-999999999").encode(),
        "volumes": WEB.replace("size: 1Gi", "[" + "{size: 1Gi}," * 3000 + "]").encode(),
        "open brackets": b"[" * 250_000,
        "open braces": b"{a: " * 60_000,
        "nulls": b"\x00" * 200_000,
        "hosts": WEB.replace("- www.example.com", "- h\n" * 1).replace("accept:", "accept: &h").encode(),
    }


def test_ten_thousand_broken_files() -> None:
    """10,000 broken files, the same in every run: only SdlRefused comes out, and some are accepted."""
    outcomes = run(10_000, seed=1)
    assert sum(outcomes.values()) == 10_000
    assert outcomes["accepted"] > 50


@pytest.mark.parametrize("name", sorted(bombs()))
def test_bombs_are_bounded(name: str) -> None:
    """A file made to cost much is answered within 50 MB, and without a traceback."""
    data = bombs()[name]
    tracemalloc.start()
    try:
        for strict in (False, True):
            with contextlib.suppress(SdlRefused):
                parse(data, strict=strict).warnings  # noqa: B018  the warnings are looked for when asked
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MOST_MEMORY
