"""Holding what nodes signed against a chain, and saying which of them lied."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.output import describe, emit, say
from ledger.notebook import read_lines, statement_in
from ledger.protocol.errors import Code, Rejected
from ledger.protocol.receipts import Evidence, SignedReceipt, Statement
from marketplace.cli.connect import notebook

if TYPE_CHECKING:
    from ledger.engine.export import VerifyReport

Json = dict[str, Any]

_FORM = "it is what gpubid ledger receipt show or gpubid ledger checkpoint prints with -o json"


def statements_of(path: Path) -> list[Statement]:
    """The statements in a file: one JSON object in all, or one a line. CommandFailed names what is no statement."""
    import msgspec

    raw = path.read_bytes()
    try:
        try:
            return [statement_in(msgspec.json.decode(raw))]
        except msgspec.DecodeError:
            return [statement_in(msgspec.json.decode(line)) for line in read_lines(path)]
    except Rejected as error:
        if error.code is Code.BAD_SIGNATURE:
            fix = "it was changed, or forged: it proves nothing"
            raise CommandFailed(f"a statement in {path} is not good: {error.detail}", Exit.FORBIDDEN, fix=fix) from None
        raise CommandFailed(f"{path} holds no signed receipt or checkpoint: {error.detail}", Exit.USAGE, fix=_FORM) from None
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise CommandFailed(f"{path} holds no signed receipt or checkpoint: {error}", Exit.USAGE, fix=_FORM) from None


def gather(chain_id: str, files: Iterable[Path], key: str | None) -> list[Statement]:
    """What is kept of a chain and what files say of it, by `key` alone where one is given.

    CommandFailed for a statement of a file that is of another chain or key.
    """
    kept, bad = notebook().statements(chain_id)
    if bad:
        say(f"{bad} kept lines are damaged and prove nothing")
    found = [statement for statement in kept if key in (None, statement.node_key)]
    for path in files:
        for statement in statements_of(path):
            if statement.said.chain_id != chain_id:
                raise CommandFailed(f"{path} is about chain {statement.said.chain_id}, the export about {chain_id}", Exit.USAGE)
            if key not in (None, statement.node_key):
                raise CommandFailed(f"{path} is signed by {statement.node_key}, not by the key that was given", Exit.FORBIDDEN)
            found.append(statement)
    return found


def conclude(
    found: "VerifyReport | None", borne_out: int, evidence: Sequence[Evidence], output: str, *, fix: str, late: str = ""
) -> None:
    """Print what a verification came to; CommandFailed where a node is convicted. `late`: what else missing blocks may mean."""
    data: Json = {"verified": found is not None and not evidence}
    if found is not None:
        data |= {"height": found.height, "state_root": found.state_root, "transactions": found.transactions}
    data |= {"statements": borne_out, "evidence": [_plain(item) for item in evidence]}
    facts = {name: value for name, value in data.items() if name != "evidence"}
    texts = [describe(facts), *(_text(item) for item in evidence)]
    emit(output, data, text="\n\n".join(texts), names=[found.state_root if found is not None else ""])
    if evidence and all(len(item.statements) == 1 and not item.other_hash for item in evidence):
        what = f"{len(evidence)} signed statements are about blocks that are missing: the chain was cut short"
        raise CommandFailed(what + late, Exit.FAILURE, fix=fix)
    if evidence:
        liars = ", ".join(sorted({item.node_key for item in evidence}))
        raise CommandFailed(f"{len(evidence)} signed statements convict the node of key {liars}", Exit.FAILURE, fix=fix)


def _plain(item: Evidence) -> Json:
    import msgspec

    plain: Json = msgspec.to_builtins(item)
    return plain


def _text(item: Evidence) -> str:
    what = f"receipt of transaction {item.transaction}" if item.transaction else "checkpoint"
    facts = {"height": item.height, "it signed": item.signed_hash, "node key": item.node_key}
    if len(item.statements) == 1:
        facts["the chain has"] = item.other_hash or "no block of that height"
    else:
        earlier = item.statements[0]
        facts["it also signed"] = item.other_hash + (
            f" (transaction {earlier.receipt.id}, height {earlier.receipt.height}, index {earlier.receipt.index},"
            f" code {earlier.receipt.code})"
            if isinstance(earlier, SignedReceipt)
            else ""
        )
    return f"{what}: {item.why}\n{describe(facts)}"
