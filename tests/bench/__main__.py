"""`make bench`: every figure beside its limit and goal, as a table and in build/bench.json."""

import importlib
import json
import platform
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("ledger", "rest", "orders", "lease", "sdl")


def row(figure: dict[str, object]) -> str:
    """A line of the table."""

    def text(value: object) -> str:
        return f"{value:.4g}" if isinstance(value, float) else "–" if value is None else str(value)

    met = {True: "met", False: "NOT MET", None: ""}[figure.get("met")]  # type: ignore[index]
    cells = [figure["name"], figure["value"], figure["unit"], figure.get("limit"), figure.get("ratio"), figure.get("goal"), met]
    return "| " + " | ".join(text(cell) for cell in cells) + " |"


def main() -> None:
    """Measure the parts named on the command line, or all."""
    figures = []
    print("| figure | value | unit | limit in this run | ratio | goal | |\n|---|---|---|---|---|---|---|", flush=True)
    for part in sys.argv[1:] or PARTS:
        for figure in importlib.import_module(f"tests.bench.{part}").figures():
            figures.append(figure)
            print(row(figure), flush=True)
    path = ROOT / "build" / "bench.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(figures, indent=1) + "\n")
    print(f"\n{platform.machine()}, Python {platform.python_version()}; written to build/bench.json")


if __name__ == "__main__":
    main()
