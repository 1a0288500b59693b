"""Finding the lease that a person means: a whole id, or the dseq alone where that says enough."""

import re
from typing import TYPE_CHECKING, Any, Final

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import home_path
from marketplace.cli.connect import settle_left
from marketplace.cli.named import is_lease_id
from marketplace.cli.offline import identity
from marketplace.cli.sending import opened

if TYPE_CHECKING:
    from marketplace.client import NodeClient
    from tenant.deploy.flow import Deployer


_DSEQ: Final = re.compile(r"[1-9][0-9]{0,14}")


def deployer(client: "NodeClient", key_name: str) -> "Deployer":
    """What carries out a tenant's commands, with the key unlocked."""
    from tenant.deploy.flow import Deployer

    principal, seed = opened(key_name)
    return Deployer(client, seed, home_path() / "tenant", principal=principal)


def sending_deployer(client: "NodeClient", key_name: str) -> "Deployer":
    """The same for commands that send: first it settles what an earlier one sent without learning its result."""
    flow = deployer(client, key_name)
    settle_left(client, flow.outbox)
    return flow


def owner_of(key_name: str) -> str:
    """The account acted for, without opening its key."""
    return identity(key_name)[0]


def deployment_of(client: "NodeClient", owner: str, dseq: int) -> dict[str, Any]:
    """A deployment with its orders and leases; where there is none it is said how those there are can be seen."""
    from marketplace.client import ApiError

    try:
        return client.deployment(owner, dseq)
    except ApiError as error:
        error.fix = error.fix or "see gpubid lease list --all"
        raise


def find_lease(client: "NodeClient", key_name: str, text: str) -> dict[str, Any]:
    """The lease of an id `owner/dseq/gseq/oseq/provider`, or of a dseq that has one: the newest of a group, open ones first."""
    if is_lease_id(text):
        found: dict[str, Any] = client.lease(text)
        return found
    if not _DSEQ.fullmatch(text):
        fix = "give owner/dseq/gseq/oseq/provider, or the dseq alone; see gpubid lease list"
        raise CommandFailed(f"{text!r} names no lease", Exit.USAGE, fix=fix)
    leases = deployment_of(client, owner_of(key_name), int(text))["leases"]
    newest = {lease["gseq"]: lease for lease in sorted(leases, key=lambda lease: lease["oseq"])}
    if not newest:
        fix = f"see why: gpubid market orders, or gpubid lease close {text}"
        raise CommandFailed(f"deployment {text} has no lease", Exit.NOT_FOUND, fix=fix)
    live = {gseq: lease for gseq, lease in newest.items() if lease["state"] != "closed"}
    newest = live or newest
    if len(newest) > 1:
        ids = "\n".join(f"    {lease['id']}" for lease in newest.values())
        raise CommandFailed(f"deployment {text} has {len(newest)} leases; name one:\n{ids}", Exit.USAGE)
    return next(iter(newest.values()))


def dseq_of(text: str, owner: str) -> int:
    """The dseq in the id of a deployment or of a lease of it, or given alone. CommandFailed where it is another's, or none."""
    if _DSEQ.fullmatch(text):
        return int(text)
    parts = text.split("/")
    if len(parts) not in (2, 5) or not _DSEQ.fullmatch(parts[1]):
        fix = "give its dseq, or owner/dseq; see gpubid lease list"
        raise CommandFailed(f"{text!r} names no deployment", Exit.USAGE, fix=fix)
    if parts[0] != owner:
        raise CommandFailed("the deployment is another account's", Exit.FORBIDDEN, fix="give --from the key of its owner")
    return int(parts[1])
