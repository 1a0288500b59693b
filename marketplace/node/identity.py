"""What this software calls itself."""

from functools import cache
from importlib.metadata import version as installed


@cache
def version() -> str:
    """Version of the installed package."""
    return installed("gpubid")
