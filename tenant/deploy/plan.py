"""A file made ready to be posted: what will be asked, in which denomination, with how much deposit."""

import time
from typing import TYPE_CHECKING, Final

import msgspec

from marketplace.protocol.messages import CreateDeployment
from marketplace.protocol.resources import Group
from tenant.deploy.failure import DeployFailed
from tenant.deploy.kept import Kept

if TYPE_CHECKING:
    from tenant.sdl import Sdl

DEPOSIT_MS: Final = 3_600_000
"""The deposit covers so much of the limit where none is named."""

MIN_DEPOSIT: Final = 1_000
"""Least default deposit in micro-units."""


class Plan(msgspec.Struct, frozen=True):
    """What will be asked of the market. Amounts are in micro-units; `limit_per_hour` is the most that all groups may cost."""

    owner: str
    dseq: int
    hash: str
    denomination: str
    deposit: int
    limit_per_hour: int
    groups: tuple[Group, ...]
    manifest: list[dict[str, object]]
    warnings: tuple[str, ...] = ()

    def kept(self) -> Kept:
        """What is to be on disk before the message is signed."""
        return Kept(owner=self.owner, dseq=self.dseq, hash=self.hash, manifest=self.manifest)

    def message(self) -> CreateDeployment:
        """The message that opens the deployment."""
        return CreateDeployment(
            denomination=self.denomination, deposit=str(self.deposit), dseq=self.dseq, groups=self.groups, hash=self.hash
        )


def new_dseq() -> int:
    """A number for a new deployment: the time in ms, as unique as its owner needs."""
    return time.time_ns() // 1_000_000


def make_plan(sdl: "Sdl", owner: str, *, deposit: int | None, dseq: int | None, ignore_auditors: bool = False) -> Plan:
    """Lower a parsed file to the market's words. LoweringRefused where the market has no word for it."""
    groups = sdl.market_groups(ignore_auditors=ignore_auditors)
    limit = sum(int(group.limit_per_hour) for group in groups)
    if deposit is None:
        deposit = max(MIN_DEPOSIT, limit * DEPOSIT_MS // 3_600_000)
    if deposit <= 0:
        raise DeployFailed("the deposit must be more than nothing", exit_code=2, fix="leave --deposit out, or name an amount")
    return Plan(
        owner=owner,
        dseq=dseq or new_dseq(),
        hash=sdl.hash,
        denomination=sdl.denomination,
        deposit=deposit,
        limit_per_hour=limit,
        groups=groups,
        manifest=sdl.manifest,
        warnings=tuple(f"line {w.line}: {w.message}" for w in sdl.warnings),
    )
