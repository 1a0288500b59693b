"""`gpubid deploy` and `gpubid quote`: from a file to a running lease, and what it would cost."""

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import from_option, home_option, home_path, node_option
from ledger.cli.output import columns, credits, emit, output_option, say
from marketplace.cli.offline import generate_option, generating
from marketplace.cli.sending import transact
from tenant.cli.lookup import dseq_of, owner_of, sending_deployer
from tenant.cli.sdl import load

if TYPE_CHECKING:
    from tenant.deploy.flow import Deployer
    from tenant.deploy.plan import Plan
    from tenant.sdl import Sdl


def addresses(status: dict[str, Any]) -> list[str]:
    """Where the published ports of a lease are reached."""
    found = []
    for name, service in status["services"].items():
        for port in service["ports"]:
            label = name if len(service["replicas"]) < 2 else f"{name}-{port['replica']}"
            found.append(f"{label}: {port['protocol']} {port['host']}:{port['host_port']} → {port['container_port']}")
    return found


def run(
    flow: "Deployer",
    dseq: int,
    timeout_s: float,
    *,
    wait: bool = True,
    manifest: list[dict[str, object]] | None = None,
) -> list[dict[str, Any]]:
    """Match, send manifests and, with `wait`, see all containers run; id, rate and the gateway's status of each lease."""
    leases = flow.wait_matched(dseq, timeout_s, say)
    for lease in leases:
        rate = credits(lease["rate_per_hour"])
        marked = " (simulated devices)" if lease["simulated"] else ""
        say(f"matched: {lease['provider']} host {lease['host']} at {rate} credits/h{marked}")
    return _start(flow, leases, timeout_s, wait=wait, manifest=manifest)


def _start(
    flow: "Deployer",
    leases: list[dict[str, Any]],
    timeout_s: float,
    *,
    wait: bool,
    manifest: list[dict[str, object]] | None = None,
) -> list[dict[str, Any]]:
    """Send the manifest for each lease and, with `wait`, see all containers run."""
    out = []
    for lease in leases:
        status = flow.send_manifest(lease, manifest, patience_s=timeout_s, progress=say)
        out.append({"id": lease["id"], "rate_per_hour": lease["rate_per_hour"], "status": status})
    if wait:
        for lease, item in zip(leases, out, strict=True):
            flow.wait_running(lease, timeout_s, lambda phase: say(f"{phase} …"))
            # A container that exits at once runs for an instant too: what counts is what its provider reports.
            flow.wait_active(lease, timeout_s)
            item["status"] = flow.wait_running(lease, timeout_s)
    return out


def describe_leases(found: list[dict[str, Any]]) -> str:
    """Lines for people: each lease, how far it is, where it is reached."""
    lines = []
    for lease in found:
        phase = lease["status"]["phase"]
        lines += [f"lease {lease['id']} {'runs' if phase == 'running' else 'is ' + phase}"]
        lines += [f"  {address}" for address in addresses(lease["status"])]
    return "\n".join(lines)


@contextlib.contextmanager
def _remembered(dseq: int) -> Iterator[None]:
    """Where what follows breaks off, say what may exist and how to go on with it."""
    from ledger.protocol.errors import Rejected
    from tenant.deploy.failure import DeployFailed

    try:
        yield
    except KeyboardInterrupt:
        say(f"\ninterrupted; deployment {dseq} may exist: gpubid lease manifest {dseq} goes on with it,")
        say(f"gpubid lease close {dseq} ends it")
        raise
    except Exception as error:
        # A refusal made nothing, and what stopped between order and containers says itself how to go on.
        if not isinstance(error, Rejected | DeployFailed):
            say(f"deployment {dseq} stays: gpubid lease manifest {dseq} goes on with it, gpubid lease close {dseq} ends it")
        raise


def _generate(node: str, key_name: str, plan: "Plan", file: str) -> None:
    """Keep the manifest and print the unsigned order; say what is to be done once it was signed and sent."""
    from tenant.deploy.kept import Shelf

    shelf = Shelf(home_path() / "tenant" / "deployments")
    shelf.put(plan.kept())
    transact(node, key_name, plan.message())
    say(f"deployment {plan.dseq}: limit {credits(plan.limit_per_hour)} credits/h, deposit {credits(plan.deposit)}")
    say(f"its manifest is kept in {shelf.path(plan.owner, plan.dseq)}")
    say("sign the transaction, send it, and send the manifest within a minute of the match:")
    say(f"  gpubid lease manifest {plan.dseq}   (in another home with --file {file})")


def _update(flow: "Deployer", dseq: int, sdl: "Sdl", timeout_s: float, *, wait: bool, ignore_auditors: bool) -> dict[str, Any]:
    """Change a deployment to a file: its hash on the ledger, then the manifest to each provider, who replaces containers."""
    revision = flow.revise(dseq, sdl, ignore_auditors=ignore_auditors)
    flow.node.chain()  # a node that has another key is said before anything is signed
    flow.update(revision)
    said = f"has the manifest {revision.kept.hash[:16]}… now" if revision.message else "has this manifest: it is sent again"
    say(f"deployment {dseq} {said}")
    leases = flow.leases(dseq)
    if not leases:
        say(f"it has no lease yet: gpubid lease manifest {dseq} goes on once it has one")
    found = _start(flow, leases, timeout_s, wait=wait)
    return {"deployment": f"{flow.owner}/{dseq}", "dseq": dseq, "hash": revision.kept.hash, "leases": found}


def _generate_update(node: str, key_name: str, dseq: int, sdl: "Sdl", ignore_auditors: bool, file: str) -> None:
    """Keep the new manifest and print the unsigned change of a deployment, for which the node is asked."""
    from marketplace.client import NodeClient
    from tenant.deploy.kept import Shelf
    from tenant.deploy.update import make_revision

    with NodeClient(node) as client:
        revision = make_revision(client.deployment(owner_of(key_name), dseq), sdl, ignore_auditors=ignore_auditors)
    if revision.message is None:
        raise CommandFailed(f"deployment {dseq} has this manifest", Exit.CONFLICT, fix=f"send it: gpubid lease manifest {dseq}")
    Shelf(home_path() / "tenant" / "deployments").propose(revision.kept)
    transact(node, key_name, revision.message)
    say("sign the transaction, send it, then send the manifest:")
    say(f"  gpubid lease manifest {dseq}   (in another home with --file {file})")


auditors_option = click.option(
    "--ignore-auditors", is_flag=True, help="Ask for none of the auditors below signedBy: any provider will do."
)


@click.command(short_help="Turn an Akash SDL file into running containers.")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--deposit", help="Credits put into its purse; an hour of the limit by default.")
@click.option(
    "--wait/--no-wait", default=True, show_default=True, help="Wait until it runs; otherwise send the manifest and leave."
)
@click.option("--timeout", "timeout_s", type=click.FloatRange(1, 86_400), default=180, show_default=True, help="Seconds to wait.")
@click.option("--strict", is_flag=True, help="Refuse what would be ignored.")
@click.option("--update", "updated", metavar="ID", help="Change this deployment to FILE; its leases go on in the same resources.")
@auditors_option
@generate_option
@from_option
@node_option
@home_option
@output_option
def deploy(
    file: str,
    deposit: str | None,
    wait: bool,
    timeout_s: float,
    strict: bool,
    updated: str | None,
    ignore_auditors: bool,
    key_name: str,
    node: str,
    output: str,
) -> None:
    """Deploy FILE (- is standard input), an Akash SDL: order, match, lease, manifest, running containers."""
    from marketplace.cli.amounts import micro_of
    from marketplace.cli.connect import connect
    from tenant.deploy.failure import NoMatch

    amount = None if deposit is None else micro_of(deposit)
    if updated and amount is not None:
        raise CommandFailed(
            "--deposit is for a new deployment", Exit.USAGE, fix="gpubid account deposit adds to the purse of one"
        )
    sdl = load(file, strict=strict)
    if updated:
        dseq = dseq_of(updated, owner_of(key_name))
        if generating():
            _generate_update(node, key_name, dseq, sdl, ignore_auditors, file)
            return
        with connect(node) as client:
            flow = sending_deployer(client, key_name)
            done = _update(flow, dseq, sdl, timeout_s, wait=wait, ignore_auditors=ignore_auditors)
        emit(output, done, text=describe_leases(done["leases"]), names=[lease["id"] for lease in done["leases"]])
        return
    if generating():
        from tenant.deploy.plan import make_plan

        owner = owner_of(key_name)
        _generate(node, key_name, make_plan(sdl, owner, deposit=amount, dseq=None, ignore_auditors=ignore_auditors), file)
        return
    with connect(node) as client:
        flow = sending_deployer(client, key_name)
        plan = flow.plan(sdl, deposit=amount, ignore_auditors=ignore_auditors)
        client.chain()  # a node that is away, or has another key, is said before anything is signed
        data: dict[str, Any] = {"deployment": f"{plan.owner}/{plan.dseq}", "dseq": plan.dseq, "leases": []}
        with _remembered(plan.dseq):
            flow.create(plan)
            say(f"deployment {plan.dseq}: limit {credits(plan.limit_per_hour)} credits/h, deposit {credits(plan.deposit)}")
            try:
                data["leases"] = found = run(flow, plan.dseq, timeout_s if wait else 0.0, wait=wait)
            except NoMatch as waiting:
                if wait:
                    raise
                say(f"{waiting}\n  → {waiting.fix}")
                emit(output, data, text=f"deployment {plan.dseq}", names=[str(plan.dseq)])
                return
    emit(output, data, text=describe_leases(found), names=[lease["id"] for lease in found])


@click.command(short_help="Say what a file would cost now, or why nothing fits.")
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--strict", is_flag=True, help="Refuse what would be ignored.")
@auditors_option
@node_option
@output_option
def quote(file: str, strict: bool, ignore_auditors: bool, node: str, output: str) -> None:
    """Say what FILE would cost now, group by group, or why nothing fits."""
    import msgspec

    from marketplace.cli.terms import in_words
    from marketplace.client import NodeClient

    sdl = load(file, strict=strict)
    groups = sdl.market_groups(ignore_auditors=ignore_auditors)
    with NodeClient(node) as client:
        quotes = client.quote(sdl.denomination, [msgspec.to_builtins(group) for group in groups])
    rows = []
    for group, found in zip(groups, quotes, strict=True):
        price = f"{credits(found['rate_per_hour'])}" if found["rate_per_hour"] else "–"
        who = f"{found['provider']} {found['host']}" if found["rate_per_hour"] else found["nearest"]
        terms = in_words(found["least_ms"], found["most_ms"], found["hold_per_hour"])
        rows.append((found["group"], price, credits(group.limit_per_hour), found["fitting"], terms, who))
    headers = ("GROUP", "CREDITS/H", "LIMIT", "FITTING", "TERMS", "CHEAPEST, OR THE NEAREST MISS")
    emit(output, quotes, text=columns(headers, rows), names=[str(q["group"]) for q in quotes])
    if not all(found["rate_per_hour"] for found in quotes):
        raise CommandFailed("nothing on offer fits now", Exit.FAILURE, fix="an order would wait; see the nearest miss above")
