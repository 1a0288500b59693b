"""A planted bug: what it changes, and the tests that must find it."""

import dataclasses
from collections.abc import Callable

import pytest


@dataclasses.dataclass(frozen=True)
class Bug:
    """`plant` breaks the product in this process only; each of `caught_by` (pytest node ids) must then fail."""

    plant: Callable[[pytest.MonkeyPatch], None]
    caught_by: tuple[str, ...]
    why: str
