"""SDL files a second, from bytes to groups, manifest and hash, beside the npm reference on the same files.

The reference is installed into build/sdl-npm by the first run where npm is to be had; without it our own number stands alone.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tenant.sdl import SdlRefused, parse
from tests.tenant.sdl.samples import ALL, VECTORS

PACKAGE = "@akashnetwork/chain-sdk@1.0.0-alpha.25"
FOLDER = Path(__file__).resolve().parents[2] / "build" / "sdl-npm"
ROUNDS = 5
GOAL = 1.5
PROGRAM = """
const sdk = require("@akashnetwork/chain-sdk/web"), y = require("js-yaml"), fs = require("fs");
const files = JSON.parse(fs.readFileSync(0, "utf8")).map((f) => fs.readFileSync(f));
async function once() {
  for (const data of files) {
    try {
      const r = sdk.generateManifest(y.load(data.toString("utf8")));
      if (r.ok) {
        Buffer.from(await sdk.generateManifestVersion(r.value.groups)).toString("hex");
        sdk.manifestToSortedJSON(r.value.groups);
        sdk.manifestToSortedJSON(r.value.groupSpecs);
      }
    } catch (e) {}
  }
}
(async () => {
  await once();
  const times = [];
  for (let i = 0; i < ROUNDS; i++) {
    const start = process.cpuUsage();
    await once();
    const used = process.cpuUsage(start);
    times.push((used.user + used.system) / 1e6);
  }
  console.log(JSON.stringify({seconds: Math.min(...times)}));
})();
"""


def _paths() -> list[Path]:
    named = VECTORS / "corpus-expected.json"
    if named.is_file():
        return [VECTORS / "corpus" / name for name in json.loads(named.read_text())]
    return [Path(__file__).resolve().parents[1] / "tenant" / "sdl" / "files" / f"{name}.yaml" for name in ALL]


def ours(paths: list[Path]) -> float:
    """Files a second of CPU time: the best of some rounds over all files."""
    files = [path.read_bytes() for path in paths]

    def once() -> float:
        start = time.process_time()
        for data in files:
            try:
                sdl = parse(data)
            except SdlRefused:
                continue
            assert sdl.hash
            assert sdl.groups
        return time.process_time() - start

    once()
    return len(files) / min(once() for _ in range(ROUNDS))


def _installed() -> bool:
    if (FOLDER / "node_modules" / "js-yaml").is_dir():
        return True
    if not shutil.which("node") or not shutil.which("npm"):
        return False
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / "package.json").write_text('{"private": true}\n')
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", PACKAGE, "js-yaml"]
    try:
        return subprocess.run(command, cwd=FOLDER, capture_output=True, timeout=300, check=False).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


def theirs(paths: list[Path]) -> float | None:
    """Files a second of the npm reference, or None where it is not to be had."""
    if not _installed():
        return None
    (FOLDER / "bench.cjs").write_text(PROGRAM.replace("ROUNDS", str(ROUNDS)))
    done = subprocess.run(
        ["node", "bench.cjs"],
        cwd=FOLDER,
        input=json.dumps([str(p) for p in paths]).encode(),
        capture_output=True,
        timeout=300,
        check=False,
    )
    if done.returncode:
        sys.stderr.write(done.stderr.decode(errors="replace")[-400:] + "\n")
        return None
    return len(paths) / float(json.loads(done.stdout)["seconds"])


def figures() -> Iterator[dict[str, object]]:
    """Our speed, the reference's in the same run, and their ratio."""
    paths = _paths()
    # Turn about, so that a busy moment of the machine meets both; the middle one of three ratios counts.
    pairs = [(ours(paths), theirs(paths)) for _ in range(3)]
    pairs.sort(key=lambda pair: pair[0] / pair[1] if pair[1] else pair[0])
    speed, reference = pairs[1]
    ratio = speed / reference if reference else None
    if reference is None:
        sys.stderr.write("npm reference not to be had here: no node, npm or package; our own number alone\n")
    yield {
        "name": f"SDL to groups, manifest and hash ({len(paths)} files)",
        "value": round(speed),
        "unit": "files/s",
        "limit": round(reference) if reference else None,
        "ratio": round(ratio, 2) if ratio else None,
        "goal": f"≥ {GOAL} × npm reference",
        "met": ratio >= GOAL if ratio else None,
    }


if __name__ == "__main__":
    for figure in figures():
        print(json.dumps(figure, ensure_ascii=False))
