"""Reading a whole file: root, version, deployment, endpoints, reclamation."""

from collections.abc import Callable
from typing import Any, Final

from tenant.sdl.document import Document, Endpoint, Run
from tenant.sdl.problem import At, Path, nearest
from tenant.sdl.quantity import duration_ns, version
from tenant.sdl.read_profiles import compute, placement
from tenant.sdl.read_services import service
from tenant.sdl.scalars import BadScalar
from tenant.sdl.tree import MAPPING, Node
from tenant.sdl.values import Field, Values

ROOT_KEYS: Final = ("version", "include", "services", "profiles", "deployment", "endpoints", "reclamation")


def _named(read: Callable[[Values, Node, Path], Any]) -> Field:
    def table(v: Values, node: Node, path: Path) -> dict[str, Any]:
        return v.table(node, path, lambda n, p: read(v, n, p))

    return table


def _run(v: Values, node: Node, path: Path) -> Run:
    got = v.fields(node, path, {"profile": Values.text, "count": Values.uint32}) or {}
    return Run(at=node.at, profile=got.get("profile", ""), count=got.get("count", 0))


def _endpoint(v: Values, node: Node, path: Path) -> Endpoint:
    return Endpoint(at=node.at, kind=(v.fields(node, path, {"kind": Values.text}) or {}).get("kind", ""))


_PROFILES: Final[dict[str, Field]] = {"compute": _named(compute), "placement": _named(placement)}


def _profiles(v: Values, node: Node, path: Path) -> dict[str, Any]:
    return v.fields(node, path, _PROFILES) or {}


def _reclamation(v: Values, node: Node, path: Path) -> int:
    at = v.walk.follow(node).at
    got = v.fields(node, path, {"min_window": Values.text}) or {}
    text = got.get("min_window", "")
    try:
        window = duration_ns(text)
    except BadScalar:
        window = 0
    if window <= 0:
        v.report.error(
            "bad_window",
            (*path, "min_window"),
            at,
            "the reclamation window must be a duration above 0",
            found=text,
            allowed="a whole number with s, m or h",
            fix="min_window: 24h",
        )
    return window


_ROOT: Final[dict[str, Field]] = {
    "include": Values.texts,
    "services": _named(service),
    "profiles": _profiles,
    "deployment": _named(_named(_run)),
    "endpoints": _named(_endpoint),
    "reclamation": _reclamation,
}


def _version(v: Values, root: Node) -> str:
    """The grammar's version; reported and taken as 2.1 where it cannot be read."""
    content = root.content
    for index, node in enumerate(content):
        if node.value == "version":
            if index + 1 == len(content):
                break
            try:
                return version(content[index + 1].value)
            except BadScalar:
                v.report.error(
                    "bad_version",
                    ("version",),
                    content[index + 1].at,
                    "this version of the SDL is not known",
                    found=content[index + 1].what,
                    allowed='"2.0", "2.1"',
                    fix='version: "2.0"',
                )
                return "2.1"
    v.report.error("no_version", ("version",), root.at, "the file names no version", allowed='"2.0", "2.1"', fix='version: "2.0"')
    return "2.1"


def document(v: Values, root: Node) -> Document:
    """All that the file says; what cannot be read is reported and stands as absent."""
    if root.kind != MAPPING:
        v.wrong(root, (), "a mapping", 'version: "2.0"\nservices: …')
        root = Node(MAPPING, "", "", root.mark)
    version_ = _version(v, root)
    got: dict[str, Any] = {}
    for name, key, value in v.pairs(root, ()):
        if name == "version":
            continue
        read = _ROOT.get(name)
        if read is None:
            near = nearest(name, ROOT_KEYS)
            v.report.error(
                "unknown_key",
                (name,),
                key.at,
                f"an SDL has no section {name!r}",
                found=name,
                allowed=", ".join(ROOT_KEYS),
                near=near,
                fix=f"{near}:" if near else "take it out",
            )
            continue
        new = read(v, value, (name,))
        # The reference reads a section that stands twice into the same table.
        old = got.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            if name == "profiles":
                new = {part: {**old.get(part, {}), **new.get(part, {})} for part in _PROFILES}
            else:
                new = {**old, **new}
        got[name] = new
    profiles = got.get("profiles", {})
    return Document(
        at=At(1, 1),
        version=version_,
        services=got.get("services", {}),
        compute=profiles.get("compute", {}),
        placement=profiles.get("placement", {}),
        deployment=got.get("deployment", {}),
        endpoints=got.get("endpoints", {}),
        include=got.get("include") or (),
        reclamation_ns=got.get("reclamation"),
    )
