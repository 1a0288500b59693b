"""From a file to a running lease, in steps that can be repeated; and back, to the exact bill."""

import contextlib
import time
from collections.abc import Callable, Container
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ledger.protocol.block import Receipt
from ledger.protocol.errors import Rejected
from ledger.protocol.messages import Message
from marketplace.client import ApiError, NodeClient, Unreachable
from marketplace.protocol.errors import MarketCode
from marketplace.protocol.ids import parse_lease
from marketplace.protocol.messages import CloseDeployment, CloseGroup
from provider.client import GatewayClient, GatewayError, GatewayUnreachable, make_token
from tenant.deploy.failure import DeployFailed, NoMatch, NotRunning
from tenant.deploy.kept import Shelf
from tenant.deploy.plan import Plan, make_plan
from tenant.deploy.update import Revision, make_revision

if TYPE_CHECKING:
    from tenant.sdl import Sdl

Progress = Callable[[str], None]
Json = dict[str, Any]

ENDED: Final = frozenset({"failed", "stopped", "closed"})
"""Phases of the gateway from which a lease does not come to run by waiting."""


def quiet(_text: str) -> None:
    """Progress that nobody reads."""


class Deployer:
    """Carries a tenant's deployments. `seed` (32 bytes) signs; `home` keeps manifests and what is being sent."""

    def __init__(self, node: NodeClient, seed: bytes, home: Path, *, principal: str | None = None) -> None:
        self.node = node
        self._seed = seed
        self.outbox = home / "outbox"
        self._sender = node.sender(seed, principal=principal, outbox=self.outbox)
        self.owner = self._sender.principal
        self.shelf = Shelf(home / "deployments")

    @property
    def attended(self) -> Container[str]:
        """Ids of transactions that are being sent now."""
        return self._sender.attended

    def prepare(self, source: bytes, *, strict: bool = False, deposit: int | None = None, dseq: int | None = None) -> Plan:
        """Parse a file and plan its deployment. SdlRefused, LoweringRefused or DeployFailed say what is wrong."""
        from tenant.sdl import parse

        return self.plan(parse(source, strict=strict), deposit=deposit, dseq=dseq)

    def plan(self, sdl: "Sdl", *, deposit: int | None = None, dseq: int | None = None, ignore_auditors: bool = False) -> Plan:
        """Plan the deployment of a parsed file. LoweringRefused or DeployFailed say what is wrong."""
        return make_plan(sdl, self.owner, deposit=deposit, dseq=dseq, ignore_auditors=ignore_auditors)

    def create(self, plan: Plan) -> Receipt | None:
        """Keep the manifest, then open the deployment. None where an earlier try had opened it already.

        Rejected says why the market refused; Unreachable that it is not known. Repeating it is harmless.
        """
        earlier = self.shelf.find(plan.owner, plan.dseq)
        if earlier is not None and earlier.hash != plan.hash:
            raise DeployFailed(f"deployment {plan.dseq} is of another file", fix="deploy it under another number", exit_code=5)
        self.shelf.put(plan.kept())
        try:
            return self._send(plan.message())
        except Rejected as refusal:
            if refusal.code == MarketCode.DEPLOYMENT_EXISTS and self._is_mine(plan):
                return None
            self.shelf.drop(plan.owner, plan.dseq)
            raise

    def revise(self, dseq: int, sdl: "Sdl", *, ignore_auditors: bool = False) -> Revision:
        """What changes a deployment to a parsed file; DeployFailed where its groups would have to change, which they cannot."""
        return make_revision(self.node.deployment(self.owner, dseq), sdl, ignore_auditors=ignore_auditors)

    def update(self, revision: Revision) -> Receipt | None:
        """Keep the new manifest, then put its hash on the ledger; None where it stands there. The leases go on as they are:
        each provider is to be sent the manifest. Repeating it is harmless.
        """
        kept = revision.kept
        if revision.message is None:
            self.shelf.adopt(kept)
            return None
        self.shelf.propose(kept)
        try:
            receipt = self._send(revision.message)
        except Rejected:
            self.shelf.withdraw(kept.owner, kept.dseq)
            raise
        self.shelf.adopt(kept)
        return receipt

    def leases(self, dseq: int) -> list[Json]:
        """The leases of a deployment that are not over, in the order of groups."""
        found = self.node.deployment(self.owner, dseq)["leases"]
        return sorted((lease for lease in found if lease["state"] != "closed"), key=lambda lease: lease["gseq"])

    def manifest(self, owner: str, dseq: int) -> list[dict[str, object]]:
        """The kept manifest that the ledger names: an update may have broken off before its result was known.

        DeployFailed where none is kept.
        """
        proposed = self.shelf.proposed(owner, dseq)
        if proposed is not None and self.node.deployment(owner, dseq)["hash"] == proposed.hash:
            self.shelf.adopt(proposed)
        return self.shelf.get(owner, dseq).manifest

    def _is_mine(self, plan: Plan) -> bool:
        found = self.node.deployment(plan.owner, plan.dseq)
        return bool(found["hash"] == plan.hash)

    def abandon(self, raw: bytes) -> None:
        """Never send these bytes again, of which no result is known; they may have been applied all the same."""
        self._sender.abandon(raw)

    def _send(self, *messages: Message) -> Receipt:
        return self._sender.send(*messages)

    def wait_matched(self, dseq: int, timeout_s: float, progress: Progress = quiet) -> list[Json]:
        """Wait until every group has a lease; the leases, in the order of groups. Groups that their owner closed count for none.

        NoMatch says why a group has none. A node that is away for a while is asked again until the time is over, and so is
        one that does not know yet a deployment whose manifest is kept here: its transaction may be on its way from elsewhere.
        """
        deadline = time.monotonic() + timeout_s
        pause, said = 0.02, ""
        while True:
            try:
                found = self.node.deployment(self.owner, dseq)
                leases, waiting = _standing(found)
            except (Unreachable, ApiError) as error:
                unknown = isinstance(error, ApiError)
                if time.monotonic() > deadline or (unknown and not self._may_come(error, dseq)):
                    raise
                words = f"deployment {dseq} is not on the ledger yet" if unknown else str(error)
            else:
                if not waiting:
                    return leases
                words = "; ".join(str(order["nearest"]) for order in waiting if order["nearest"])
                if time.monotonic() > deadline:
                    raise NoMatch(dseq, waiting)
            if words and words != said:
                progress(f"waiting: {words}")
                said = words
            time.sleep(pause)
            pause = min(pause * 1.5, 1.0)

    def _may_come(self, error: Unreachable | ApiError, dseq: int) -> bool:
        return isinstance(error, ApiError) and error.status == 404 and self.shelf.find(self.owner, dseq) is not None

    def gateway(self, lease: Json) -> GatewayClient:
        """A client of the lease's provider, as a context manager."""
        record = self.node.provider(lease["provider"])

        def token(id: str, scope: str) -> str:
            return make_token(self._seed, lease["owner"], id, lease["provider"], scope, int(time.time()))

        return GatewayClient(record["endpoint"], record["gateway_key"], token)

    def send_manifest(
        self,
        lease: Json,
        manifest: list[dict[str, object]] | None = None,
        *,
        patience_s: float = 0.0,
        progress: Progress = quiet,
    ) -> Json:
        """Send the kept manifest (or the one given) to the lease's provider; the gateway's status.

        A gateway that does not answer is asked again for `patience_s` seconds; then GatewayUnreachable.
        """
        if manifest is None:
            manifest = self.manifest(lease["owner"], lease["dseq"])
        deadline = time.monotonic() + patience_s
        pause, told = 0.1, False
        with self.gateway(lease) as gateway:
            while True:
                try:
                    return gateway.put_manifest(lease["id"], manifest)
                except (GatewayUnreachable, GatewayError) as error:
                    # 503 is a gateway that is up and has yet to see the ledger.
                    lasting = isinstance(error, GatewayError) and error.status != 503
                    if lasting or time.monotonic() + pause > deadline:
                        raise
                    if not told:
                        progress(f"{error}; trying again")
                        told = True
                time.sleep(pause)
                pause = min(pause * 2, 2.0)

    def wait_running(self, lease: Json, timeout_s: float, progress: Progress = quiet) -> Json:
        """Wait until the lease's containers run; the gateway's status. NotRunning says why they do not."""
        deadline = time.monotonic() + timeout_s
        pause, said = 0.02, ""
        with self.gateway(lease) as gateway:
            while True:
                status = self._look(gateway, lease)
                phase = str(status["phase"])
                if phase == "running":
                    return status
                words = f"{phase}: {status['error']}" if status.get("error") else phase
                if words != said and phase not in ENDED:
                    progress(words)
                    said = words
                if phase in ENDED:
                    raise self._not_running(lease, status)
                if time.monotonic() > deadline:
                    fix = f"see gpubid lease logs {lease['dseq']} and gpubid lease status {lease['dseq']}"
                    raise NotRunning(
                        f"lease {lease['id']} is {phase}: {status.get('error') or 'it takes long'}", fix=fix, exit_code=6
                    )
                time.sleep(pause)
                pause = min(pause * 1.3, 0.1)

    def wait_active(self, lease: Json, timeout_s: float) -> Json:
        """Wait until the provider reports the lease to the ledger, which it does once the containers have lasted a moment.

        The lease as it is then. NotRunning where they ended before, or where no report came in the time.
        """
        deadline = time.monotonic() + timeout_s
        pause = 0.02
        while True:
            record = self.node.lease(lease["id"])
            if record["state"] == "closed":
                raise self._not_running(lease, {"phase": "closed"})
            if record["state"] != "matched":
                return record
            if time.monotonic() > deadline:
                fix = f"see gpubid lease status {lease['dseq']} and gpubid lease logs {lease['dseq']}"
                raise NotRunning(f"lease {lease['id']} is not reported to run yet", fix=fix, exit_code=6)
            time.sleep(pause)
            pause = min(pause * 1.5, 0.5)

    def _look(self, gateway: GatewayClient, lease: Json) -> Json:
        """What the gateway says now; what the ledger says of the lease where the gateway does not answer."""
        try:
            return gateway.status(lease["id"])
        except (GatewayUnreachable, GatewayError) as error:
            # 503 is a gateway that cannot see the ledger or its engine; 404 may be one that has forgotten what is over.
            if isinstance(error, GatewayError) and error.status not in (404, 503):
                raise
            with contextlib.suppress(ApiError, Unreachable):
                if self.node.lease(lease["id"])["state"] == "closed":
                    return {"phase": "closed", "error": ""}
            if isinstance(error, GatewayError) and error.status == 404:
                raise
            return {"phase": "unreachable", "error": str(error)}

    def _not_running(self, lease: Json, status: Json) -> NotRunning:
        reason = str(status.get("error") or "")
        with contextlib.suppress(ApiError, Unreachable):
            record = self.node.lease(lease["id"])
            reason = reason or ": ".join(filter(None, (str(record["reason"]), str(record["detail"]))))
        fix = f"mend the file and deploy again; gpubid lease close {lease['dseq']} settles this one"
        return NotRunning(f"lease {lease['id']} does not run: {reason or status['phase']}", fix=fix)

    def close_group(self, dseq: int, gseq: int) -> Json:
        """Close one group of a deployment; what it came to."""
        return self._bill(self._send(CloseGroup(dseq=dseq, gseq=gseq)))

    def close(self, dseq: int) -> Json:
        """Close a deployment: leases ended and paid, the rest refunded. The bill, from the ledger's own events.

        Its `purse` says what the whole life of the deployment came to: deposited = paid + charged + withdrawn + refunded;
        it is None where the node was away by then. A lease's `hold` is the part of its cost that long pulls were billed.
        """
        bill = self._bill(self._send(CloseDeployment(dseq=dseq)))
        self.shelf.drop(self.owner, dseq)
        bill["purse"] = None
        with contextlib.suppress(ApiError, Unreachable):
            found = self.node.deployment(self.owner, dseq)
            bill["purse"] = {name: found["purse"][name] for name in ("deposited", "paid", "charged", "withdrawn", "refunded")}
            holds = {lease["id"]: lease["hold_cost"] for lease in found["leases"]}
            for lease in bill["leases"]:
                lease["hold"] = holds.get(lease["id"], "0")
        return bill

    def _bill(self, receipt: Receipt) -> Json:
        events = [e if isinstance(e, dict) else msgspec.to_builtins(e) for e in receipt.events]
        of: dict[str, list[Json]] = {}
        for event in events:
            of.setdefault(str(event["kind"]), []).append(event)
        leases = [
            {"id": e["lease"], "provider": parse_lease(e["lease"]).provider, "paid": e["paid"]} for e in of.get("LeaseEnded", [])
        ]
        refunds = [{"depositor": e["depositor"], "amount": e["amount"]} for e in of.get("Refunded", [])]
        return {
            "transaction": receipt.id,
            "height": receipt.height,
            "leases": leases,
            "paid": str(sum(int(lease["paid"]) for lease in leases)),
            "charged": str(sum(int(e["amount"]) for e in of.get("Charged", []))),
            "fees": str(sum(int(e["fee"]) for e in of.get("MeterPaid", []))),
            "refunds": refunds,
            "refund": str(sum(int(refund["amount"]) for refund in refunds)),
        }


def _standing(found: Json) -> tuple[list[Json], list[Json]]:
    """(leases, open orders) of a deployment. DeployFailed where it is over, NoMatch where a group is."""
    dseq = found["dseq"]
    if found["state"] == "closed":
        raise DeployFailed(f"deployment {dseq} is closed: {found['reason']}", fix="deploy it again", exit_code=5)
    newest = {order["gseq"]: order for order in sorted(found["orders"], key=lambda order: order["oseq"])}
    if all(order["state"] == "closed" and order["reason"] == "owner" for order in newest.values()):
        fix = f"gpubid lease close {dseq} refunds what is left"
        raise DeployFailed(f"every group of deployment {dseq} is closed", fix=fix, exit_code=5)
    over = [order for order in newest.values() if order["state"] == "closed" and order["reason"] != "owner"]
    if over:
        raise NoMatch(dseq, over)
    leases = sorted((lease for lease in found["leases"] if lease["state"] != "closed"), key=lambda lease: lease["gseq"])
    return leases, [order for order in newest.values() if order["state"] == "open"]
