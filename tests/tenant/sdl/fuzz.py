"""Random files against the parser: broken bytes and broken trees. Only SdlRefused may come out.

`python -m tests.tenant.sdl.fuzz --count 1000000 [--seed 1]` runs it at length and prints what it did.
"""

import argparse
import copy
import json
import random
import resource
import sys
import time
from collections import Counter
from typing import Any

import yaml

from tenant.sdl import LoweringRefused, SdlRefused, as_json, as_text, parse
from tests.tenant.sdl.samples import ALL

SEEDS = [text.encode() for text in ALL.values()]
TREES = [yaml.load(text, yaml.CSafeLoader) for text in ALL.values()]
BITS = [
    b"&a ",
    b"*a",
    b"<<: *a\n",
    b"!!int ",
    b"!!binary ",
    b"!x ",
    b"? ",
    b"- ",
    b": ",
    b"{",
    b"}",
    b"[",
    b"]",
    b"\t",
    b"\x00",
    b"\xff",
    b"\xef\xbb\xbf",
    b"---\n",
    b"...\n",
    b"%YAML 1.2\n",
    b"|\n",
    b">-\n",
    b'"',
    b"'",
    b"~",
    b"null",
    b"1e3",
    b"0x1p-2",
    b"1_000",
    b".inf",
    b"nan",
    b"0o17",
    b"99999999999999999999",
    b"-0.5",
    b"\xe2\x80\xa8",
    b"#",
    b"\r",
    b"\\u0000",
]
VALUES: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    80,
    2**32,
    2**64,
    1.5,
    1e308,
    "",
    "x",
    "yes",
    "1e3",
    "500m",
    "1Gi",
    "1.5.2",
    "\u2028",
    "é",
    "*",
    "/",
    [],
    {},
    [None],
    {"a": None},
    [[]],
    "80-90",
    "h100",
    "ip",
    "global",
    {"version": "2.1"},
    "9" * 500,
    "1e999999999",
    "0x1p99999",
]


def broken_bytes(rng: random.Random) -> bytes:
    """A sample with some of its bytes changed, moved or repeated."""
    data = bytearray(rng.choice(SEEDS))
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(data) + 1)
        what = rng.randrange(5)
        if what == 0:
            data[at:at] = rng.choice(BITS)
        elif what == 1:
            del data[at : at + rng.randint(1, 40)]
        elif what == 2:
            data[at : at + 1] = bytes([rng.randrange(256)])
        elif what == 3:
            data[at:at] = data[at : at + rng.randint(1, 200)]
        else:
            lines = bytes(data).split(b"\n")
            one, two = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[one], lines[two] = lines[two], lines[one]
            data = bytearray(b"\n".join(lines))
    return bytes(data)


def broken_tree(rng: random.Random) -> bytes:
    """A sample with some of its values, keys or lists changed, written as flow YAML."""
    tree = json.loads(json.dumps(rng.choice(TREES)))
    for _ in range(rng.randint(1, 3)):
        node = tree
        for _ in range(rng.randint(0, 8)):
            children = [v for v in (node.values() if isinstance(node, dict) else node) if isinstance(v, dict | list) and v]
            if not children:
                break
            node = rng.choice(children)
        if isinstance(node, dict):
            key = rng.choice(list(node))
            what = rng.randrange(4)
            if what == 0:
                node[key] = copy.deepcopy(rng.choice(VALUES))
            elif what == 1:
                node[rng.choice([str(v) for v in VALUES[:20]] + list(node))] = node.pop(key)
            elif what == 2:
                del node[key]
            else:
                node[key] = [node[key]]
        else:
            node[rng.randrange(len(node))] = copy.deepcopy(rng.choice(VALUES))
        if not isinstance(tree, dict) or not tree:
            break
    return json.dumps(tree, ensure_ascii=rng.random() < 0.5).encode("utf-8", "surrogatepass")


def refusal(refused: SdlRefused) -> str:
    """Code of the first error; every problem has a place and a text."""
    for problem in (*refused.errors, *refused.warnings):
        assert problem.line >= 1, problem
        assert problem.column >= 1, problem
        assert as_text(problem, refused.source)
        json.dumps(as_json(problem))
    return refused.errors[0].code


def one(data: bytes, strict: bool) -> str:
    """Parse; anything but our refusals goes up."""
    try:
        sdl = parse(data, strict=strict)
    except SdlRefused as refused:
        return refusal(refused)
    assert len(sdl.hash) == 64
    json.dumps([sdl.groups, sdl.manifest])
    try:
        sdl.market_groups()
    except LoweringRefused as refused:
        return refused.code
    return "accepted"


def run(count: int, seed: int) -> Counter[str]:
    """That many files; how often each outcome came."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    for number in range(count):
        data = broken_bytes(rng) if number % 2 else broken_tree(rng)
        try:
            outcomes[one(data, number % 5 == 0)] += 1
        except BaseException:
            sys.stderr.write(f"seed {seed}, file {number}: {data!r}\n")
            raise
    return outcomes


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser()
    options.add_argument("--count", type=int, default=10_000)
    options.add_argument("--seed", type=int, default=1)
    given = options.parse_args()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    outcomes = run(given.count, given.seed)
    seconds = time.perf_counter() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(json.dumps({"count": given.count, "seed": given.seed, "seconds": round(seconds), "grown_kib": grown, **outcomes}))


if __name__ == "__main__":
    main()
