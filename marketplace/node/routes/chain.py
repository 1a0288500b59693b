"""Routes about the chain: status, genesis, parameters, blocks, receipts, proofs, checkpoint, export."""

import os
import re
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path as FilePath
from typing import Annotated, BinaryIO

import msgspec
from fastapi import APIRouter, Path, Query
from starlette.responses import Response, StreamingResponse

from ledger.protocol.encoding import encode
from ledger.protocol.genesis import PROTOCOL
from marketplace.node import views
from marketplace.node.answers import documented, json, ref
from marketplace.node.composition import Serving
from marketplace.node.identity import version
from marketplace.node.paging import MAX_PAGE, answer
from marketplace.node.problems import Problem, missing, pruned
from marketplace.node.sealing import Signed, sealed

router = APIRouter(tags=["chain"])

_CHUNK = 256 * 1024
_exporting = threading.Lock()

Height = Annotated[int, Path(ge=0, le=2**53 - 1, description="Height of a block, from 1")]


@router.get("/v1/status", responses=documented(ref("Status")))
async def status(node: Serving) -> Response:
    """Where the chain stands; `time_ms` is block time as it runs now, `protocol_known` the newest rules the node knows."""
    head, planned = node.engine.head, node.engine.planned_upgrade
    return json(
        {
            "chain_id": head.chain_id,
            "height": head.height,
            "time_ms": max(node.engine.now_ms(), head.time_ms),
            "state_root": head.state_root,
            "hash": head.hash,
            "protocol": head.protocol,
            "protocol_known": PROTOCOL,
            "upgrade_height": planned[0] if planned else 0,
            "upgrade_protocol": planned[1] if planned else 0,
            "node_key": node.key_hex,
            "dev": node.engine.genesis.dev,
            "faucet": node.faucet is not None,
            "version": version(),
        }
    )


@router.get("/v1/genesis", responses=documented(ref("Genesis")))
def genesis(node: Serving) -> Response:
    """The chain's first state; its hash is the parent of the header at height 0."""
    return Response(encode(node.engine.genesis), media_type="application/json")


@router.get("/v1/parameters", responses=documented({"type": "object", "additionalProperties": {"type": "integer"}}))
def parameters(node: Serving) -> Response:
    """Every protocol parameter in force."""
    with node.engine.read() as machine:
        return json(machine.parameters())


@router.get("/v1/transactions/{id}", responses=documented(ref("Receipt"), 404))
def transaction(node: Serving, id: Annotated[str, Path(max_length=64)], signed: Signed = False) -> Response:
    """The receipt of a transaction of any age; its `code` is 0 where it was applied. Signed by the node where that is asked."""
    receipt = node.engine.receipt(id) if re.fullmatch(r"[0-9a-f]{64}", id) else None
    if receipt is None:
        raise missing("transaction", id)
    return json(sealed(node.notary, receipt) if signed else receipt)


@router.get("/v1/blocks", responses=documented(ref("Headers")))
def blocks(
    node: Serving,
    before: Annotated[int | None, Query(ge=1, le=2**53 - 1, description="Only blocks below this height")] = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
) -> Response:
    """Headers, newest first; `next` is the `before` of the following page."""
    top = min(node.engine.head.height, (before or 2**53) - 1)
    first = max(1, top - limit + 1)
    found = node.engine.blocks(first, top - first + 1) if top >= 1 else []
    items = [views.header(b.header) | {"transaction_count": len(b.result.receipts)} for b in reversed(found)]
    return json(answer(items, str(first) if items and first > 1 else None))


@router.get("/v1/blocks/{height}", responses=documented(ref("Block"), 404))
def block(node: Serving, height: Height) -> Response:
    """A block with its signed transactions, receipts and events."""
    found = node.engine.block(height) if height else None
    if found is None:
        raise pruned(node.engine.first_height) if 0 < height < node.engine.first_height else missing("block", str(height))
    return json(views.block(list(found.raws), found.result))


@router.get("/v1/blocks/{height}/checkpoint", responses=documented(ref("Checkpoint"), 404))
def checkpoint_of(node: Serving, height: Height) -> Response:
    """A block, signed by the node."""
    if not node.engine.first_height <= height <= node.engine.head.height:
        raise pruned(node.engine.first_height) if 0 < height < node.engine.first_height else missing("block", str(height))
    return json(node.notary.checkpoint_of(height))


@router.get("/v1/proofs/{table}/{key:path}", responses=documented(ref("Proved"), 404))
def proof(node: Serving, table: Annotated[str, Path(max_length=64)], key: Annotated[str, Path(max_length=256)]) -> Response:
    """A proof that a record is in the state, or is not, under the state root of a signed checkpoint."""
    with node.engine.read() as machine:
        made = machine.prove(f"{table}/{key}")
        head = machine.head
    return json({"proof": made, "header": views.header(head)} | msgspec.structs.asdict(node.notary.checkpoint(head)))


@router.get("/v1/checkpoint", responses=documented(ref("Checkpoint")))
async def checkpoint(node: Serving) -> Response:
    """The newest block, signed by the node: two that differ at one height prove that it lied."""
    return json(node.notary.checkpoint(node.engine.head))


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    with file:
        while chunk := file.read(_CHUNK):
            yield chunk


@router.get(
    "/v1/export",
    responses={
        200: {"description": "The chain, as `gpubid ledger verify` takes it", "content": {"application/octet-stream": {}}},
        **{k: v for k, v in documented({}, 404, 429).items() if k != 200},
    },
    response_class=StreamingResponse,
)
def export(node: Serving) -> StreamingResponse:
    """The genesis and all blocks, to replay and verify elsewhere. One is made at a time."""
    if node.engine.first_height > 1:
        raise pruned(node.engine.first_height)
    if not _exporting.acquire(blocking=False):
        raise Problem(429, "an export is being made", fix="try again in a few seconds", retry_after_s=5)
    try:
        folder = tempfile.mkdtemp(prefix="export-", dir=node.home)
        path = FilePath(folder) / "chain.export"
        try:
            node.engine.export(path)
            file = path.open("rb")
        finally:
            # An open file outlives its name: nothing stays behind, whatever becomes of the reader.
            path.unlink(missing_ok=True)
            FilePath(folder).rmdir()
    finally:
        _exporting.release()
    size = os.fstat(file.fileno()).st_size
    return StreamingResponse(_chunks(file), media_type="application/octet-stream", headers={"content-length": str(size)})
