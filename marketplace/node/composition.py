"""What a running node is made of, and how routes reach it."""

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, cast

from fastapi import Depends
from starlette.requests import Request

from ledger.engine.embedded import Engine
from marketplace.node.faucet import Faucet
from marketplace.node.hub import Hub
from marketplace.node.identity import Notary
from marketplace.node.metrics import Metrics


@dataclass(frozen=True)
class Node:
    """The parts of a node. `key_seed` (32 bytes) signs receipts and checkpoints; `home` is where temporary files go."""

    engine: Engine
    hub: Hub
    metrics: Metrics
    home: Path
    key_seed: bytes = field(repr=False)
    key_hex: str
    faucet: Faucet | None = None

    @cached_property
    def notary(self) -> Notary:
        """What signs with the node's key."""
        return Notary(self.engine, self.key_seed, self.key_hex)


async def node_of(request: Request) -> Node:
    """The node that serves a request."""
    return cast(Node, request.app.state.node)


Serving = Annotated[Node, Depends(node_of)]


async def raw_body(request: Request) -> bytes:
    """The body as it was received; the edge has bounded it."""
    return await request.body()


RawBody = Annotated[bytes, Depends(raw_body)]
