"""What the gateway is made of, and how routes reach it."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, cast

import msgspec
from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from marketplace.client import NodeClient
from provider.client import make_token
from tenant.api.store import Store
from tenant.api.work import Worker
from tenant.deploy.flow import Deployer


@dataclass(frozen=True)
class Gateway:
    """The parts of a gateway. `key` is the bearer key, `seed` (32 bytes) signs for the account."""

    node: NodeClient
    flow: Deployer
    store: Store
    worker: Worker
    key: str = field(repr=False)
    seed: bytes = field(repr=False)

    def token(self, lease: Mapping[str, Any], scope: str) -> str:
        """A token for a lease's provider, good for two minutes."""
        return make_token(self.seed, lease["owner"], lease["id"], lease["provider"], scope, int(time.time()))


def gateway_of(request: Request) -> Gateway:
    """The gateway that serves a request."""
    return cast(Gateway, request.app.state.gateway)


Serving = Annotated[Gateway, Depends(gateway_of)]


def answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(msgspec.json.encode(body), status, headers, "application/json")
