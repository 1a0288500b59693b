"""Reading values of one kind, as Go's yaml.v3 decodes them into typed fields: reports what does not fit, and goes on."""

from collections.abc import Callable
from typing import Any, TypeVar

from tenant.sdl.problem import Path, Report
from tenant.sdl.scalars import BadScalar, as_bool, as_uint32, resolve
from tenant.sdl.tree import ALIAS, MAPPING, SCALAR, SEQUENCE, Node, Walk

T = TypeVar("T")
Field = Callable[["Values", Node, Path], Any]


class Values:
    """Readers of values. Null reads as absent, wherever it stands."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.walk = Walk(report)

    def wrong(self, node: Node, path: Path, allowed: str, fix: str) -> None:
        """Report a value of the wrong type."""
        self.report.error("wrong_type", path, node.at, f"this must be {allowed}", found=node.what, allowed=allowed, fix=fix)

    def text(self, node: Node, path: Path) -> str:
        """A scalar as it is written; nothing for null."""
        if node.tag == "!!str" and node.kind == SCALAR:
            return node.value
        node = self.walk.follow(node)
        if node.kind != SCALAR:
            self.wrong(node, path, "a text", "write one word or a quoted text")
            return ""
        if node.tag in ("", "!!str"):
            return "" if node.null else node.value
        try:
            tag, value = resolve(node.tag, node.value)
        except BadScalar as error:
            self.wrong(node, path, "a text", f"leave out the tag: {error}")
            return ""
        return str(value) if tag == "!!binary" else "" if value is None and tag == "!!null" else node.value

    def present(self, node: Node) -> bool:
        """False for a null, also by alias."""
        return not (self.walk.follow(node) if node.kind == ALIAS else node).null

    def texts(self, node: Node, path: Path) -> tuple[str, ...] | None:
        """A list of texts, null elements left out; None for null."""
        items = self.items(node, path, "a list of texts", "write - and a text, a line each")
        if items is None:
            return None
        return tuple(self.text(item, (*path, i)) for i, item in items)

    def items(self, node: Node, path: Path, allowed: str, fix: str) -> list[tuple[int, Node]] | None:
        """The elements of a list that are not null, with their index; None for null or no list."""
        node = self.walk.follow(node)
        if node.null:
            return None
        if node.kind != SEQUENCE:
            self.wrong(node, path, allowed, fix)
            return None
        return [(i, item) for i, item in enumerate(node.content) if self.present(item)]

    def uint32(self, node: Node, path: Path) -> int:
        """A whole number from 0 to 2³²−1; 0 for null."""
        plain = node.value
        if not node.tag and node.kind == SCALAR and plain.isascii() and plain.isdigit() and plain[0] != "0" and len(plain) < 10:
            return int(plain)
        return self._scalar(node, path, as_uint32, 0, "a whole number from 0 to 4294967295", "write the number alone, as 80")

    def flag(self, node: Node, path: Path) -> bool:
        """A truth value; false for null."""
        return self._scalar(node, path, as_bool, False, "true or false", "write true or false without quotes")

    def _scalar(self, node: Node, path: Path, read: Callable[[str, str], T | None], absent: T, allowed: str, fix: str) -> T:
        node = self.walk.follow(node)
        if node.null:
            return absent
        value = None
        if node.kind == SCALAR:
            try:
                value = read(node.tag, node.value)
            except BadScalar:
                value = None
        if value is None:
            self.wrong(node, path, allowed, fix)
            return absent
        return value

    def raw(self, node: Node, path: Path, read: Callable[[str], T], absent: T, allowed: str, fix: str) -> T:
        """A quantity, read from the text as it is written whatever its tag; `absent` for null."""
        node = self.walk.follow(node)
        if node.null:
            return absent
        try:
            return read(node.value)
        except BadScalar as error:
            message = f"{node.what!r} is not {allowed}" if node.kind == SCALAR else f"this must be {allowed}"
            self.report.error("bad_quantity", path, node.at, message, found=node.what, allowed=allowed, fix=fix or str(error))
            return absent

    def fields(self, node: Node, path: Path, known: dict[str, Field]) -> dict[str, Any] | None:
        """The known fields of a mapping, read; None for null or no mapping. Unknown ones are left to the schema."""
        if node.kind != MAPPING or node.tag:
            node = self.walk.follow(node)
        if node.kind != MAPPING:
            if node.null:
                return None
            self.wrong(node, path, "a mapping", "write " + ", ".join(f"{k}: …" for k in list(known)[:3]) + ", a line each")
            return None
        out: dict[str, Any] = {}
        for name, _key, value in self.walk.entries(node, path):
            read = known.get(name)
            if read is not None:
                out[name] = read(self, value, (*path, name))
        return out

    def table(self, node: Node, path: Path, read: Callable[[Node, Path], T]) -> dict[str, T]:
        """A mapping from names to values, read; empty for null."""
        node = self.walk.follow(node)
        if node.null:
            return {}
        if node.kind != MAPPING:
            self.wrong(node, path, "a mapping of names", "write a name and a colon, then what it names, indented")
            return {}
        return {name: read(value, (*path, name)) for name, _key, value in self.walk.entries(node, path)}

    def pairs(self, node: Node, path: Path) -> list[tuple[str, Node, Node]]:
        """(name, key, value) of a mapping that the reference reads by hand: no merge keys, the last of a name wins."""
        node = self.walk.follow(node)
        content = node.content
        if len(content) % 2:
            self.wrong(node, path, "a mapping", "write name: value, a line each")
            return []
        self.walk.steps += len(content)
        return [(content[i].value, content[i], content[i + 1]) for i in range(0, len(content), 2)]
