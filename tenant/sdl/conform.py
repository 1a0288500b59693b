"""Holding a tree to the JSON Schema, with places: the warnings of default mode, the errors of strict mode."""

import re
from typing import Any, Final

from tenant.sdl.problem import Path, Report, nearest
from tenant.sdl.scalars import BOOLS, NULLS, BadScalar, resolve
from tenant.sdl.schema import SCHEMA, Schema
from tenant.sdl.tree import MAPPING, SCALAR, SEQUENCE, Node, Walk

_TAG_TYPE: Final = {"!!null": "null", "!!bool": "boolean", "!!int": "integer", "!!float": "number"}
_EXAMPLES: Final = {
    "string": 'quote it: "…"',
    "array": "write - and a value, a line each",
    "object": "write name: value, a line each",
    "integer": "write a whole number without quotes",
    "boolean": "write true or false without quotes",
    "number": "write a number",
}
WILL_NOT: Final = {
    "depends_on": "services start in no order: let this one retry until the other answers",
    "depends-on": "services start in no order: let this one retry until the other answers",
    "volumes": "nothing is mounted: name volumes below profiles.compute.….storage and mount them below params.storage",
    "cmd": "the image's own command runs: write command: or args:",
    "links": "services reach each other by name already, through expose: … to: - service:",
    "restart": "a container is always started again",
    "ports": "no port is published: write expose:",
    "environment": "no variable is set: write env:",
    "entrypoint": "the image's own entry point runs: write command:",
    "container_name": "the service's name is its name",
    "healthcheck": "nothing checks the container",
    "privileged": "the container gets no privileges",
    "user": "the image's own user runs",
    "working_dir": "the image's own folder is used",
}
"""What will not happen because of a key that is ignored."""


class Rule:
    """A part of the schema, ready to be applied."""

    __slots__ = (
        "branches",
        "closed",
        "const",
        "contains",
        "description",
        "enum",
        "exclusive",
        "items",
        "least",
        "max_items",
        "maximum",
        "min_length",
        "minimum",
        "negated",
        "others",
        "pattern",
        "patterns",
        "properties",
        "required",
        "simple",
        "types",
    )

    def __init__(self, schema: Schema) -> None:
        types = schema.get("type", [])
        self.types: tuple[str, ...] = tuple([types] if isinstance(types, str) else types)
        self.properties = {name: Rule(part) for name, part in schema.get("properties", {}).items()}
        self.patterns = [(re.compile(p), Rule(part)) for p, part in schema.get("patternProperties", {}).items()]
        others = schema.get("additionalProperties", True)
        self.closed = others is False
        self.others = Rule(others) if isinstance(others, dict) else None
        self.required: list[str] = schema.get("required", [])
        self.least: int = schema.get("minProperties", 0)
        self.items = Rule(schema["items"]) if "items" in schema else None
        self.enum: list[Any] | None = schema.get("enum", [schema["const"]] if "const" in schema else None)
        self.pattern = re.compile(schema["pattern"]) if "pattern" in schema else None
        self.min_length: int = schema.get("minLength", 0)
        self.minimum: int | None = schema.get("minimum")
        self.maximum: int | None = schema.get("maximum")
        self.exclusive: int | None = schema.get("exclusiveMinimum")
        self.contains = Rule(schema["contains"]) if "contains" in schema else None
        self.max_items: int | None = schema.get("maxItems")
        self.negated = Rule(schema["not"]) if "not" in schema else None
        parts = [*schema.get("allOf", []), schema] if "if" in schema else schema.get("allOf", [])
        self.branches = [(Rule(part["if"]), Rule(part["then"])) for part in parts]
        self.simple = self.types == ("string",) and not any(
            (self.enum, self.pattern, self.min_length, self.negated, self.branches)
        )


RULE: Final = Rule(SCHEMA)


def typed(node: Node) -> tuple[str, Any]:
    """The JSON type and value of a node."""
    if node.kind == MAPPING:
        return "object", None
    if node.kind == SEQUENCE:
        return "array", None
    text = node.value
    if node.tag == "!!str" or (not node.tag and text[:1].isalpha() and text not in NULLS and text not in BOOLS):
        return "string", text
    try:
        tag, value = resolve(node.tag, text)
    except BadScalar:
        return "unreadable", text
    kind = _TAG_TYPE.get(tag, "string")
    if kind == "number" and value is not None and value.denominator == 1:
        return "integer", int(value)
    return kind, value


def _same(one: Any, two: Any) -> bool:
    return type(one) is type(two) and bool(one == two)


def _key(path: Path) -> str:
    return f"{path[-1]}: " if path and isinstance(path[-1], str) else "- " if path else ""


def _short(values: list[Any]) -> str:
    return ", ".join("true" if v is True else "false" if v is False else str(v) for v in values)


class Conform:
    """Applies the schema. `quiet` asks only whether a part holds, for conditions."""

    def __init__(self, walk: Walk, report: Report) -> None:
        self.walk = walk
        self.report = report

    def check(self, rule: Rule, node: Node, path: Path, quiet: bool = False) -> bool:
        """Hold a node to a rule; report what does not fit unless quiet. True where all fits."""
        node = self.walk.follow(node)
        kind, value = typed(node)
        if rule.simple and kind == "string":
            return True
        if rule.types and not (kind in rule.types or (kind == "integer" and "number" in rule.types)):
            return self._no(
                quiet, "schema_type", path, node, "this should be " + " or ".join(rule.types), _EXAMPLES[rule.types[0]]
            )
        good = True
        if kind == "object":
            good = self._object(rule, node, path, quiet)
        elif kind == "array":
            good = self._array(rule, node, path, quiet)
        if node.kind == SCALAR:
            good = self._scalar(rule, node, kind, value, path, quiet)
        if good and rule.negated is not None and self.check(rule.negated, node, path, quiet=True):
            return self._no(quiet, "schema_value", path, node, "this value does not belong here", "write another value")
        for condition, consequence in rule.branches:
            if self.check(condition, node, path, quiet=True) and not self.check(consequence, node, path, quiet):
                good = False
        return good

    def _no(
        self, quiet: bool, code: str, path: Path, node: Node, message: str, fix: str, allowed: str = "", near: str = ""
    ) -> bool:
        if not quiet:
            self.report.warn(code, path, node.at, message, found=node.what, allowed=allowed, near=near, fix=fix)
        return False

    def _object(self, rule: Rule, node: Node, path: Path, quiet: bool) -> bool:
        good = True
        names = set()
        entries = self.walk.entries(node, path)
        for name, key, value in entries:
            names.add(name)
            part = rule.properties.get(name) or next((r for p, r in rule.patterns if p.search(name)), rule.others)
            if part is not None:
                good = self.check(part, value, (*path, name), quiet) and good
            elif rule.closed:
                good = False
                if not quiet:
                    self._unknown(rule, name, key, (*path, name))
        for name in rule.required:
            if name not in names:
                good = self._no(
                    quiet, "schema_required", (*path, name), node, f"{name} should be given", f"{name}: …", allowed=name
                )
        if len(entries) < rule.least:
            good = self._no(
                quiet, "schema_empty", path, node, "this should not be empty", "nvidia:", allowed=", ".join(rule.properties)
            )
        return good

    def _unknown(self, rule: Rule, name: str, key: Node, path: Path) -> None:
        known = list(rule.properties)
        near = nearest(name, known)
        says = WILL_NOT.get(name, "nothing happens because of it")
        self.report.warn(
            "unknown_key",
            path,
            key.at,
            f"{name[:60]!r} is ignored: {says}",
            found=name,
            allowed=", ".join(known),
            near=near,
            fix=f"{near}: …" if near else f"take {name[:60]!r} out",
        )

    def _array(self, rule: Rule, node: Node, path: Path, quiet: bool) -> bool:
        good = True
        if rule.items is not None:
            for index, item in enumerate(node.content):
                good = self.check(rule.items, item, (*path, index), quiet) and good
        if rule.contains is not None:
            good = any(self.check(rule.contains, item, path, quiet=True) for item in node.content) and good
        if rule.max_items is not None and len(node.content) > rule.max_items:
            good = self._no(quiet, "schema_value", path, node, f"at most {rule.max_items} here", "leave one")
        return good

    def _scalar(self, rule: Rule, node: Node, kind: str, value: Any, path: Path, quiet: bool) -> bool:
        if rule.enum is not None and not any(_same(value, one) for one in rule.enum):
            allowed = _short(rule.enum)
            near = nearest(node.value, [str(one) for one in rule.enum])
            return self._no(
                quiet,
                "schema_enum",
                path,
                node,
                "this value is not one of those known",
                f"{_key(path)}{near or _short(rule.enum[:1])}",
                allowed,
                near,
            )
        if kind == "string":
            if len(value) < rule.min_length:
                fix = f"give {rule.min_length} letters or more"
                return self._no(
                    quiet, "schema_length", path, node, "this text is too short", fix, f"at least {rule.min_length} letters"
                )
            if rule.pattern is not None and not rule.pattern.search(value):
                allowed = rule.pattern.pattern
                return self._no(
                    quiet, "schema_pattern", path, node, "this text has not the form it should have", f"match {allowed}", allowed
                )
        if kind in ("integer", "number") and value is not None:
            low = (rule.minimum is not None and value < rule.minimum) or (rule.exclusive is not None and value <= rule.exclusive)
            if low or (rule.maximum is not None and value > rule.maximum):
                least = rule.minimum if rule.minimum is not None else f"above {rule.exclusive}"
                allowed = f"{least} to {rule.maximum}" if rule.maximum is not None else f"{least} or more"
                return self._no(quiet, "schema_range", path, node, "this number is out of range", f"write {allowed}", allowed)
        return True


def conform(walk: Walk, root: Node, report: Report) -> None:
    """Note in the report all that the reference's schema would say of the file."""
    walk.soft = report.warn
    Conform(walk, report).check(RULE, root, ())
