"""The door of the SDL library: `parse`, and what it gives."""

from functools import cached_property, partial
from typing import Any

from marketplace.protocol.resources import Group
from tenant.sdl.check import Checker
from tenant.sdl.conform import conform
from tenant.sdl.document import Document
from tenant.sdl.lower import build, canonical, digest
from tenant.sdl.market import denomination, market_groups
from tenant.sdl.problem import At, Problem, Report, SdlRefused
from tenant.sdl.read import document
from tenant.sdl.tree import BadYaml, Node, Walk, load, locate
from tenant.sdl.values import Values


class Sdl:
    """An accepted SDL. Immutable: do not change the lists it hands out."""

    __slots__ = ("__dict__", "_tree", "document", "groups", "manifest", "source")

    document: Document
    groups: list[dict[str, Any]]
    manifest: list[dict[str, Any]]
    source: str
    _tree: tuple[Walk, Node]

    def __init__(self, document_: Document, source: str, tree: tuple[Walk, Node]) -> None:
        groups, manifest = build(document_)
        for name, value in (
            ("document", document_),
            ("groups", groups),
            ("manifest", manifest),
            ("source", source),
            ("_tree", tree),
        ):
            object.__setattr__(self, name, value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError("an Sdl does not change")

    @cached_property
    def warnings(self) -> tuple[Problem, ...]:
        """All that the reference silently ignores, in file order; looked for when first asked."""
        walk, root = self._tree
        report = Report(strict=False)
        try:
            conform(walk, root, report)
        except BadYaml as bad:
            report.warn(bad.code, (), bad.at, str(bad), fix=bad.fix)
        return report.warnings

    @cached_property
    def canonical_manifest(self) -> bytes:
        """The bytes that are hashed."""
        return canonical(self.manifest)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical manifest, in hex: what stands on the ledger."""
        return digest(self.canonical_manifest)

    @cached_property
    def denomination(self) -> str:
        """What the deployment pays in: `ucredit` for uact and uakt, others by their own name. Raises LoweringRefused."""
        return denomination(self.document)

    def market_groups(self, *, ignore_auditors: bool = False) -> tuple[Group, ...]:
        """What to ask of this market, see `tenant.sdl.market`; limits in micro-units an hour. Raises LoweringRefused."""
        return market_groups(self.document, ignore_auditors=ignore_auditors)


def parse(source: bytes | str, *, strict: bool = False) -> Sdl:
    """Read an SDL from its bytes or text.

    What the Akash reference accepts is accepted, with a warning for all that it silently ignores; `strict` makes
    these errors. Raises SdlRefused with every error at once, and nothing else.
    """
    data = source.encode("utf-8", "replace") if isinstance(source, str) else source
    report = Report(strict)
    read: Document | None = None
    values = Values(report)
    root: Node | None = None
    try:
        root = load(data)
        if root is None or root.null:
            report.error("empty", (), At(1, 1), "the file is empty", fix='version: "2.0"\nservices: …')
        else:
            root = values.walk.follow(root)
            read = document(values, root)
            report.locate = partial(locate, root)
            Checker(read, report).check()
            report.locate = None
            if strict or report:
                conform(values.walk, root, report)
    except BadYaml as bad:
        report.error(bad.code, (), bad.at, str(bad), fix=bad.fix)
    text = source if isinstance(source, str) else data.decode("utf-8", "replace")
    if report:
        raise SdlRefused(report.errors, report.warnings, text)
    assert read is not None
    assert root is not None
    return Sdl(read, text, (values.walk, root))
