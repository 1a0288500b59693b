"""Ids nest as the business does: `owner/dseq`, `owner/dseq/gseq/oseq`, `owner/dseq/gseq/oseq/provider`.

They are texts on the wire and in state; these functions take them apart and put them together.
"""

from typing import Annotated, NamedTuple

import msgspec

_ADDRESS = r"gpu1[02-9ac-hj-np-z]{38}"
_SEQ = r"[1-9][0-9]{0,14}"

Dseq = Annotated[int, msgspec.Meta(ge=1, le=10**15 - 1)]
Seq = Annotated[int, msgspec.Meta(ge=1, le=10**6)]
HostName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?\Z")]
OrderId = Annotated[str, msgspec.Meta(pattern=rf"^{_ADDRESS}/{_SEQ}/{_SEQ}/{_SEQ}\Z")]
LeaseId = Annotated[str, msgspec.Meta(pattern=rf"^{_ADDRESS}/{_SEQ}/{_SEQ}/{_SEQ}/{_ADDRESS}\Z")]


class LeaseParts(NamedTuple):
    """A lease id taken apart; `text` puts it together."""

    owner: str
    dseq: int
    gseq: int
    oseq: int
    provider: str

    @property
    def text(self) -> str:
        """The id as it stands in messages and URLs."""
        return f"{self.owner}/{self.dseq}/{self.gseq}/{self.oseq}/{self.provider}"

    @property
    def order(self) -> str:
        """Id of the order that the lease filled."""
        return order_id(self.owner, self.dseq, self.gseq, self.oseq)

    @property
    def deployment(self) -> str:
        """Id of the deployment, and of its purse."""
        return deployment_id(self.owner, self.dseq)


def deployment_id(owner: str, dseq: int) -> str:
    """Id of a deployment; its purse has the same one."""
    return f"{owner}/{dseq}"


def order_id(owner: str, dseq: int, gseq: int, oseq: int) -> str:
    """Id of an order."""
    return f"{owner}/{dseq}/{gseq}/{oseq}"


def parse_order(text: str) -> tuple[str, int, int, int]:
    """(owner, dseq, gseq, oseq); ValueError where the text is not an order id."""
    owner, dseq, gseq, oseq = text.split("/")
    return owner, int(dseq), int(gseq), int(oseq)


def parse_lease(text: str) -> LeaseParts:
    """The parts of a lease id; ValueError where the text is not one."""
    owner, dseq, gseq, oseq, provider = text.split("/")
    return LeaseParts(owner, int(dseq), int(gseq), int(oseq), provider)
