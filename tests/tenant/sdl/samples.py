"""The small files beside this module, read once."""

from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent / "files"
VECTORS: Final = Path(__file__).resolve().parents[3].parent / "shared" / "vectors" / "akash-sdl"
WEB: Final = (FOLDER / "web.yaml").read_text()
GPU: Final = (FOLDER / "gpu.yaml").read_text()
TWO: Final = (FOLDER / "two.yaml").read_text()
ADDRESS: Final = (FOLDER / "address.yaml").read_text()
ALL: Final = {"web": WEB, "gpu": GPU, "two": TWO, "address": ADDRESS}
