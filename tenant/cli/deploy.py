"""`gpubid deploy` and `gpubid quote`: from a file to a running lease, and what it would cost."""

from typing import TYPE_CHECKING, Any

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import from_option, home_option, node_option
from ledger.cli.output import columns, credits, emit, output_option, say
from tenant.cli.lookup import deployer
from tenant.cli.sdl import load, read_source

if TYPE_CHECKING:
    from tenant.deploy.flow import Deployer
    from tenant.deploy.plan import Plan


def addresses(status: dict[str, Any]) -> list[str]:
    """Where the published ports of a lease are reached."""
    return [
        f"{name}: {port['protocol']} {port['host']}:{port['host_port']} → {port['container_port']}"
        for name, service in status["services"].items()
        for port in service["ports"]
    ]


def _run(flow: "Deployer", plan: "Plan", timeout_s: float) -> list[dict[str, Any]]:
    """Match, send manifests, wait until all run; (lease, status) of each."""
    leases = flow.wait_matched(plan.dseq, timeout_s, say)
    for lease in leases:
        rate = credits(lease["rate_per_hour"])
        marked = " (simulated devices)" if lease["simulated"] else ""
        say(f"matched: {lease['provider']} host {lease['host']} at {rate} credits/h{marked}")
        flow.send_manifest(lease)
    out = []
    for lease in leases:
        status = flow.wait_running(lease, timeout_s, lambda phase: say(f"{phase} …"))
        out.append({"id": lease["id"], "rate_per_hour": lease["rate_per_hour"], "status": status})
    return out


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--deposit", help="Credits put into its purse; an hour of the limit by default.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait until it runs.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(1, 86_400), default=180, show_default=True, help="Seconds to wait.")
@click.option("--strict", is_flag=True, help="Refuse what would be ignored.")
@from_option
@node_option
@home_option
@output_option
def deploy(
    file: str, deposit: str | None, wait: bool, timeout_s: float, strict: bool, key_name: str, node: str, output: str
) -> None:
    """Deploy FILE, an Akash SDL: order, match, lease, manifest, running containers."""
    from marketplace.cli.amounts import micro_of
    from marketplace.client import NodeClient

    load(file, strict=strict) if file != "-" else None
    source = read_source(file)
    with NodeClient(node) as client:
        flow = deployer(client, key_name)
        plan = flow.prepare(source, strict=strict, deposit=None if deposit is None else micro_of(deposit))
        try:
            flow.create(plan)
            say(f"deployment {plan.dseq}: limit {credits(plan.limit_per_hour)} credits/h, deposit {credits(plan.deposit)}")
            data: dict[str, Any] = {"deployment": f"{plan.owner}/{plan.dseq}", "dseq": plan.dseq, "leases": []}
            if not wait:
                emit(output, data, text=f"deployment {plan.dseq}", names=[str(plan.dseq)])
                return
            found = _run(flow, plan, timeout_s)
        except KeyboardInterrupt:
            say(f"\ninterrupted; deployment {plan.dseq} may exist: gpubid lease manifest {plan.dseq} goes on with it,")
            say(f"gpubid lease close {plan.dseq} ends it")
            raise
    data["leases"] = found
    lines = []
    for lease in found:
        lines += [f"lease {lease['id']} runs", *(f"  {address}" for address in addresses(lease["status"]))]
    emit(output, data, text="\n".join(lines), names=[lease["id"] for lease in found])


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, allow_dash=True))
@click.option("--strict", is_flag=True, help="Refuse what would be ignored.")
@node_option
@output_option
def quote(file: str, strict: bool, node: str, output: str) -> None:
    """Say what FILE would cost now, group by group, or why nothing fits."""
    import msgspec

    from marketplace.client import NodeClient

    sdl = load(file, strict=strict)
    groups = sdl.market_groups()
    with NodeClient(node) as client:
        quotes = client.quote(sdl.denomination, [msgspec.to_builtins(group) for group in groups])
    rows = []
    for group, found in zip(groups, quotes, strict=True):
        price = f"{credits(found['rate_per_hour'])}" if found["rate_per_hour"] else "–"
        who = f"{found['provider']} {found['host']}" if found["rate_per_hour"] else found["nearest"]
        rows.append((found["group"], price, credits(group.limit_per_hour), found["fitting"], who))
    headers = ("GROUP", "CREDITS/H", "LIMIT", "FITTING", "CHEAPEST, OR THE NEAREST MISS")
    emit(output, quotes, text=columns(headers, rows), names=[str(q["group"]) for q in quotes])
    if not all(found["rate_per_hour"] for found in quotes):
        raise CommandFailed("nothing on offer fits now", Exit.FAILURE, fix="an order would wait; see the nearest miss above")
