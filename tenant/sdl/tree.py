"""The YAML of a file as a tree with places: libyaml's events, with the node model of Go's yaml.v3.

Bounded: bytes, nodes and depth have limits, aliases are followed only as the grammar asks, and counted.
"""

from collections.abc import Callable
from typing import Any, Final

import yaml
from yaml.cyaml import CParser  # type: ignore[attr-defined]

from tenant.sdl.problem import At, Report
from tenant.sdl.scalars import NULLS

MOST_BYTES: Final = 256 * 1024
MOST_NODES: Final = 20_000
MOST_DEPTH: Final = 200
MOST_STEPS: Final = 100_000

SCALAR: Final = 0
MAPPING: Final = 1
SEQUENCE: Final = 2
ALIAS: Final = 3


_NOTHING: Final[list["Node"]] = []
"""The content of every scalar: shared, never added to."""


class Node:
    """A node: `content` holds keys and values in turn, as yaml.v3 keeps them. `tag` is empty for a plain scalar."""

    __slots__ = ("content", "entries", "kind", "mark", "tag", "target", "value")

    def __init__(self, kind: int, tag: str, value: str, mark: Any) -> None:
        self.kind = kind
        self.tag = tag
        self.value = value
        self.mark = mark
        self.content: list[Node] = [] if kind else _NOTHING
        self.target: Node | None = None
        self.entries: list[tuple[str, Node, Node]] | None = None

    @property
    def at(self) -> At:
        """Where it begins."""
        return At(self.mark.line + 1, self.mark.column + 1)

    @property
    def null(self) -> bool:
        """True for a null, as yaml.v3's short tag says."""
        return self.tag == "!!null" or (self.kind == SCALAR and not self.tag and self.value in NULLS)

    @property
    def what(self) -> str:
        """What it is, for a message."""
        return {SCALAR: self.value, MAPPING: "a mapping", SEQUENCE: "a list", ALIAS: "*" + self.value}[self.kind]


class BadYaml(Exception):
    """The text is no YAML, or past a limit; carries where."""

    def __init__(self, code: str, message: str, at: At, fix: str) -> None:
        super().__init__(message)
        self.code = code
        self.at = at
        self.fix = fix


def _short(tag: str | None) -> str:
    if not tag or tag == "!":
        return ""
    return "!!" + tag[18:] if tag.startswith("tag:yaml.org,2002:") else tag


def load(source: bytes) -> Node | None:
    """The first document of the text, or None for an empty one. Raises BadYaml."""
    start = At(1, 1)
    if len(source) > MOST_BYTES:
        raise BadYaml("too_large", f"the file has {len(source)} bytes", start, f"keep an SDL under {MOST_BYTES} bytes")
    try:
        parser = CParser(source)
        try:
            return _compose(parser)
        finally:
            parser.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = At(mark.line + 1, mark.column + 1) if mark else start
        said = ": ".join(str(part) for part in (error.context, error.problem) if part)
        raise BadYaml("yaml_syntax", f"this is no YAML: {said}", at, "mend the indentation or the quotes here") from None
    except (yaml.YAMLError, UnicodeError) as error:
        place = getattr(error, "position", None)
        line = source[:place].count(b"\n") + 1 if isinstance(place, int) else 1
        said = f"the text cannot be read: {str(error)[:120]}"
        raise BadYaml("yaml_text", said, At(line, 1), "save the file as UTF-8") from None


def _compose(parser: Any) -> Node | None:  # noqa: PLR0912  one loop over the events, for speed
    get = parser.get_event
    scalar, mapping, sequence = yaml.ScalarEvent, yaml.MappingStartEvent, yaml.SequenceStartEvent
    mapping_end, sequence_end = yaml.MappingEndEvent, yaml.SequenceEndEvent
    anchors: dict[str, Node] = {}
    open_: list[Node] = []
    top: list[Node] = []
    into = top
    count = 0
    while True:
        event = get()
        kind = type(event)
        if kind is scalar:
            tag = _short(event.tag) if event.tag else ""
            if not tag and event.style:
                tag = "!!str"
            node = Node(SCALAR, tag, event.value, event.start_mark)
            into.append(node)
            if event.anchor:
                anchors[event.anchor] = node
        elif kind is mapping or kind is sequence:
            tag = _short(event.tag) if event.tag else ""
            node = Node(MAPPING if kind is mapping else SEQUENCE, tag, "", event.start_mark)
            into.append(node)
            if event.anchor:
                anchors[event.anchor] = node
            open_.append(node)
            into = node.content
            if len(open_) > MOST_DEPTH:
                raise BadYaml("too_deep", f"more than {MOST_DEPTH} levels", node.at, "flatten the file")
        elif kind is mapping_end or kind is sequence_end:
            open_.pop()
            into = open_[-1].content if open_ else top
        elif kind is yaml.AliasEvent:
            node = Node(ALIAS, "", event.anchor, event.start_mark)
            target = anchors.get(event.anchor)
            if target is None:
                raise BadYaml("unknown_anchor", f"no anchor named {event.anchor!r} above", node.at, f"add &{event.anchor} first")
            if target in open_:
                raise BadYaml("anchor_in_itself", f"anchor {event.anchor!r} contains itself", node.at, "take the alias out")
            node.target = target
            into.append(node)
        elif kind is yaml.DocumentStartEvent:
            if event.version not in (None, (1, 1)):
                raise BadYaml("yaml_version", "only %YAML 1.1 can be read", At(1, 1), "leave the %YAML line out")
        elif kind is yaml.DocumentEndEvent or kind is yaml.StreamEndEvent:
            return top[0] if top else None
        count += 1
        if count > MOST_NODES:
            raise BadYaml("too_many_nodes", f"more than {MOST_NODES} values", At(1, 1), "split the deployment")


def locate(root: Node, path: tuple[Any, ...]) -> At:
    """The place of the deepest value on a path that the file has."""
    node = root
    for part in path:
        while node.kind == ALIAS and node.target is not None:
            node = node.target
        found: Node | None = None
        if node.kind == MAPPING:
            content = node.content
            found = next((content[i + 1] for i in range(0, len(content) - 1, 2) if content[i].value == part), None)
        elif node.kind == SEQUENCE and isinstance(part, int) and part < len(node.content):
            found = node.content[part]
        if found is None:
            break
        node = found
    return node.at


class Walk:
    """Follows aliases and reads mappings as yaml.v3 does, within a bound on all steps of a file."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.steps = 0
        self.soft: Callable[..., None] | None = None
        """Where warnings go while the schema is applied: what the reference does not read may be malformed."""

    def follow(self, node: Node) -> Node:
        """The node itself, or what its alias names."""
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise BadYaml("aliases", "the aliases unfold into too much", node.at, "write the parts out, or use fewer aliases")
        while node.kind == ALIAS:
            assert node.target is not None
            node = node.target
        return node

    def entries(self, node: Node, path: tuple[Any, ...]) -> list[tuple[str, Node, Node]]:
        """The (name, key, value) of a mapping: duplicates refused, merge keys unfolded, null keys left out."""
        if node.entries is None:
            out = self._plain(node)
            if out is None:
                out = []
                self._collect(node, path, out, set(), 0)
            node.entries = out
        return node.entries

    def _plain(self, node: Node) -> list[tuple[str, Node, Node]] | None:
        """The entries where every key is a word of its own, as nearly always; None where a closer look is needed."""
        content = node.content
        self.steps += len(content)
        out = []
        seen = set()
        for index in range(0, len(content), 2):
            key = content[index]
            name = key.value
            if key.kind != SCALAR or key.tag not in ("", "!!str") or name in NULLS or name == "<<" or name in seen:
                return None
            seen.add(name)
            out.append((name, key, content[index + 1]))
        return out

    def _say(self, code: str, path: tuple[Any, ...], node: Node, message: str, fix: str) -> None:
        note = self.soft or self.report.error
        note(code, path, node.at, message, found=node.what, fix=fix)

    def _collect(self, node: Node, path: tuple[Any, ...], out: list[tuple[str, Node, Node]], seen: set[str], depth: int) -> None:
        content = node.content
        merged: Node | None = None
        self.steps += len(content)
        own: set[tuple[int, str]] = set()
        for index in range(0, len(content), 2):
            key = content[index]
            mark = (key.kind, key.value)
            if mark in own:
                self._say("duplicate_key", (*path, key.value), key, f"the key {key.what[:60]!r} stands twice", "keep one of them")
                continue
            own.add(mark)
            if key.kind == SCALAR and key.value == "<<" and key.tag in ("", "!!merge"):
                merged = content[index + 1]
                continue
            real = self.follow(key)
            if real.null:
                continue
            if real.kind != SCALAR:
                self._say("key_type", path, key, "a key must be a word", "write a plain word")
                continue
            if real.value not in seen:
                seen.add(real.value)
                out.append((real.value, key, content[index + 1]))
        if merged is not None:
            self._merge(merged, path, out, seen, depth)

    def _merge(self, merged: Node, path: tuple[Any, ...], out: list[tuple[str, Node, Node]], seen: set[str], depth: int) -> None:
        # An alias may name a mapping, never a list of them: yaml.v3 refuses that.
        parts = merged.content if merged.kind == SEQUENCE else [merged]
        for part in parts:
            real = self.follow(part)
            if real.kind != MAPPING or depth > MOST_DEPTH:
                fix = "write <<: *name, where name is the anchor of a mapping"
                self._say("merge_type", (*path, "<<"), part, "<< takes a mapping or a list of mappings", fix)
            else:
                self._collect(real, path, out, seen, depth + 1)
