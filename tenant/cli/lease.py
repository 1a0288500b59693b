"""`gpubid lease`: what runs, what it says and costs, and its end."""

import sys
from typing import TYPE_CHECKING, Any

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import from_option, home_option, node_option
from ledger.cli.output import credits, describe, emit, output_option, say
from marketplace.cli.named import is_lease_id
from marketplace.cli.offline import generate_option, generating, without_node
from marketplace.cli.sending import transact
from tenant.cli.deploy import addresses, describe_leases, run
from tenant.cli.lookup import deployer, deployment_of, dseq_of, find_lease, owner_of, sending_deployer

if TYPE_CHECKING:
    from marketplace.client import NodeClient
    from marketplace.protocol.messages import CloseDeployment, CloseGroup


@click.group()
def lease() -> None:
    """List, show, follow, enter and close leases."""


@lease.command("list")
@click.option("--all", "everything", is_flag=True, help="Closed ones too.")
@from_option
@node_option
@home_option
@output_option
def list_(everything: bool, key_name: str, node: str, output: str) -> None:
    """List the leases of the key's account."""
    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        found = client.leases(owner=owner_of(key_name))
    found = [item for item in found if everything or item["state"] != "closed"]
    rows = [
        (i["dseq"], i["gseq"], i["state"], i["provider"], i["host"], _devices(i), credits(i["rate_per_hour"]), credits(i["cost"]))
        for i in found
    ]
    headers = ("DSEQ", "GSEQ", "STATE", "PROVIDER", "HOST", "DEVICES", "CREDITS/H", "COST")
    emit(output, found, headers=headers, rows=rows, names=[item["id"] for item in found])


def _devices(item: dict[str, Any]) -> str:
    count = len(item["devices"])
    return f"{count} simulated" if count and item["simulated"] else str(count) if count else "–"


def _facts(item: dict[str, Any]) -> dict[str, object]:
    seconds = item["up_ms"] / 1000
    facts: dict[str, object] = {
        "id": item["id"],
        "state": item["state"] + (f" ({item['reason']})" if item["reason"] else ""),
        "provider": item["provider"],
        "host": item["host"],
        "devices": _devices(item),
        "generation": item["generation"],
        "rate": f"{credits(item['rate_per_hour'])} credits/h",
        "up": f"{seconds:.3f} s",
        "cost": f"{credits(item['cost'])} credits",
        "paid": f"{credits(item['paid'])} credits",
    }
    if item["pulling_ms"]:
        lasts = max(0, item["time_ms"] - item["pulling_ms"])
        facts["pulling"] = f"for {lasts / 1000:.0f} s, held at {credits(item['hold_per_hour'])} credits/h"
    if item["hold_ms"]:
        billed = "billed if it comes to run or you close it" if item["pulling_ms"] else "billed"
        facts["hold"] = f"{credits(item['hold_cost'])} credits for {item['hold_ms'] / 1000:.3f} s of pulling, {billed}"
    if item["dry_at_ms"]:
        facts["funded for"] = f"{max(0, item['dry_at_ms'] - item['time_ms']) / 1000:.0f} s"
    for name, digest in item["images"].items():
        facts[f"image {name}"] = digest
    return facts


@lease.command("show")
@click.argument("id")
@click.option("-w", "--watch", is_flag=True, help="Show again every second, until Ctrl-C.")
@from_option
@node_option
@home_option
@output_option
def show(id: str, watch: bool, key_name: str, node: str, output: str) -> None:
    """Show lease ID with its cost until now."""
    import time

    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        while True:
            item = find_lease(client, key_name, id)
            emit(output, item, text=describe(_facts(item)), names=[item["id"]])
            if not watch or item["state"] == "closed":
                return
            time.sleep(1)
            click.echo("")


@lease.command("status", short_help="Show what the provider says: phase, services, ports.")
@click.argument("id")
@from_option
@node_option
@home_option
@output_option
def status(id: str, key_name: str, node: str, output: str) -> None:
    """Show what the provider says of lease ID: phase, services, published ports."""
    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        item = find_lease(client, key_name, id)
        with deployer(client, key_name).gateway(item) as gateway:
            found = gateway.status(item["id"])
    facts = {"phase": found["phase"] + (f": {found['error']}" if found["error"] else ""), "generation": found["generation"]}
    for name, service in found["services"].items():
        count = len(service["replicas"])
        facts[f"service {name}"] = f"{service['state']}, {count} replica{'s' * (count != 1)}, {service['image']}"
    text = "\n".join([describe(facts), *(f"  {line}" for line in addresses(found))])
    emit(output, found, text=text, names=[item["id"]])


@lease.command("logs")
@click.argument("id")
@click.option("-f", "--follow", is_flag=True, help="Go on with new lines as they come.")
@click.option("--tail", type=click.IntRange(0), help="Begin with the last so many lines.")
@click.option("--service", default="", help="One service only.")
@click.option("--timestamps", is_flag=True, help="Put the time before each line.")
@from_option
@node_option
@home_option
def logs(id: str, follow: bool, tail: int | None, service: str, timestamps: bool, key_name: str, node: str) -> None:
    """Print what the containers of lease ID wrote."""
    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        item = find_lease(client, key_name, id)
        with deployer(client, key_name).gateway(item) as gateway:
            names: set[str] = set()
            for line in gateway.logs(item["id"], service=service, follow=follow, tail=tail):
                names.add(f"{line['service']}-{line['replica']}")
                prefix = f"{line['time']} " if timestamps else ""
                prefix += f"[{line['service']}-{line['replica']}] " if len(names) > 1 else ""
                click.echo(prefix + line["text"], err=line["stream"] == "stderr" and not sys.stdout.isatty())
            if not names and item["state"] == "closed":
                say("the lease is closed: its containers are gone, and what they wrote with them")


@lease.command(
    "exec", context_settings={"ignore_unknown_options": True}, short_help="Run a command inside a lease, and leave with its code."
)
@click.argument("id")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.option("--service", default="", help="Service; needed where there are several.")
@click.option("--replica", type=click.IntRange(0), default=0, show_default=True)
@click.option("-i", "--stdin", "use_stdin", is_flag=True, help="Pass standard input to the command.")
@from_option
@node_option
@home_option
def exec_(id: str, command: tuple[str, ...], service: str, replica: int, use_stdin: bool, key_name: str, node: str) -> None:
    """Run COMMAND inside lease ID and leave with its exit code: gpubid lease exec ID -- ls /."""
    from marketplace.client import NodeClient

    given = sys.stdin.buffer.read() if use_stdin else b""
    code = None
    with NodeClient(node) as client:
        item = find_lease(client, key_name, id)
        with deployer(client, key_name).gateway(item) as gateway:
            service = service or _only_service(gateway.status(item["id"]))
            for chunk in gateway.exec(item["id"], service, command, replica=replica, stdin=given):
                if "exit_code" in chunk:
                    code = int(chunk["exit_code"])
                    continue
                stream = sys.stderr.buffer if chunk["stream"] == "stderr" else sys.stdout.buffer
                stream.write(chunk["data"])
                stream.flush()
    raise _ended(code)


def _only_service(found: dict[str, Any]) -> str:
    names = list(found["services"])
    if not names:
        raise CommandFailed(f"nothing runs in the lease: it is {found['phase']}", Exit.CONFLICT, fix="see gpubid lease list")
    if len(names) != 1:
        raise CommandFailed(f"the lease has {len(names)} services", Exit.USAGE, fix=f"give --service, one of: {', '.join(names)}")
    return str(names[0])


@lease.command("shell", context_settings={"ignore_unknown_options": True})
@click.argument("id")
@click.argument("command", nargs=-1, type=click.UNPROCESSED)
@click.option("--service", default="", help="Service; needed where there are several.")
@click.option("--replica", type=click.IntRange(0), default=0, show_default=True)
@from_option
@node_option
@home_option
def shell(id: str, command: tuple[str, ...], service: str, replica: int, key_name: str, node: str) -> None:
    """Open a terminal inside lease ID (/bin/sh by default)."""
    from marketplace.client import NodeClient
    from tenant.cli.terminal import attach

    with NodeClient(node) as client:
        item = find_lease(client, key_name, id)
        with deployer(client, key_name).gateway(item) as gateway:
            service = service or _only_service(gateway.status(item["id"]))
            with gateway.shell(item["id"], service, command or ("/bin/sh",), replica=replica) as opened:
                code = attach(opened)
    raise _ended(code)


def _ended(code: int | None) -> Exception:
    """What leaves with the remote command's exit code, or says that its end was not seen."""
    if code is None:
        return CommandFailed("the command's end was not seen: its container or the connection went away", Exit.UNREACHABLE)
    return click.exceptions.Exit(code)


@lease.command("manifest", short_help="Send the manifest again, and wait until it runs.")
@click.argument("dseq", type=click.IntRange(1))
@click.option("--file", type=click.Path(dir_okay=False), help="The deployment file, where this home does not have it.")
@click.option("--timeout", "timeout_s", type=click.FloatRange(1, 86_400), default=180, show_default=True, help="Seconds to wait.")
@from_option
@node_option
@home_option
@output_option
def manifest(dseq: int, file: str | None, timeout_s: float, key_name: str, node: str, output: str) -> None:
    """Send the manifest of deployment DSEQ again, and wait until it runs."""
    from marketplace.cli.connect import connect
    from tenant.cli.sdl import load

    given = None if file is None else load(file).manifest
    with connect(node) as client:
        found = run(sending_deployer(client, key_name), dseq, timeout_s, manifest=given)
    emit(output, found, text=describe_leases(found), names=[item["id"] for item in found])


@lease.command("close", short_help="End a lease or deployment, with the exact bill.")
@click.argument("id")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@generate_option
@from_option
@node_option
@home_option
@output_option
def close(id: str, yes: bool, key_name: str, node: str, output: str) -> None:
    """Close lease ID, or deployment DSEQ: it ends, is paid to the millisecond, and the rest is refunded.

    Closing the last lease of a deployment closes the deployment.
    """
    from marketplace.cli.connect import connect

    if generating():
        transact(node, key_name, _ending(node, id, owner_of(key_name)))
        return
    with connect(node) as client:
        flow = sending_deployer(client, key_name)
        dseq, gseq, whole = _meant(client, id, flow.owner)
        if not yes and sys.stdin.isatty() and not click.confirm(f"Close {'deployment' if whole else 'group'} {id}?", err=True):
            raise CommandFailed("nothing was closed")
        bill = flow.close(dseq) if whole else flow.close_group(dseq, gseq)
    lines = [f"lease {item['id']}\n  paid {credits(item['paid'])} credits{_hold(item)}" for item in bill["leases"]]
    facts = {"paid": f"{credits(bill['paid'])} credits", "refunded": f"{credits(bill['refund'])} credits"}
    if int(bill["charged"]):
        facts["charged"] = f"{credits(bill['charged'])} credits"
    if bill.get("purse"):
        whole_life = bill["purse"]
        facts["in all"] = f"{credits(whole_life['deposited'])} deposited, {credits(whole_life['paid'])} paid"
    emit(output, bill, text="\n".join([*lines, describe(facts)]), names=[str(dseq)])


def _meant(client: "NodeClient", id: str, owner: str) -> tuple[int, int, bool]:
    """(dseq, gseq, the whole deployment is meant) of an id; CommandFailed where the lease is none of it, or over."""
    dseq, gseq = _named(id, owner)
    found = deployment_of(client, owner, dseq)
    if gseq is not None:
        _still_open(found, id)
    open_groups = {order["gseq"] for order in found["orders"] if order["state"] != "closed"}
    return dseq, gseq or 0, gseq is None or open_groups <= {gseq}


def _ending(node: str, id: str, owner: str) -> "CloseDeployment | CloseGroup":
    """The message that ends a lease or deployment; without a node to ask, that which its id says."""
    from marketplace.client import NodeClient
    from marketplace.protocol.messages import CloseDeployment, CloseGroup

    if without_node():
        dseq, named = _named(id, owner)
        gseq, whole = named or 0, named is None
    else:
        with NodeClient(node) as client:
            dseq, gseq, whole = _meant(client, id, owner)
    if whole:
        return CloseDeployment(dseq=dseq)
    say(f"closes group {gseq} only: the deployment and its purse stay until gpubid lease close {dseq}")
    return CloseGroup(dseq=dseq, gseq=gseq)


def _hold(item: dict[str, Any]) -> str:
    """What of a lease's bill was for long pulls."""
    return f" ({credits(item['hold'])} of its cost for a long pull)" if int(item.get("hold", "0")) else ""


def _still_open(found: dict[str, Any], id: str) -> None:
    """CommandFailed where the named lease is none of the deployment's, or over: its group may have another by now."""
    state = {item["id"]: item["state"] for item in found["leases"]}.get(id)
    if state is None:
        raise CommandFailed(f"there is no lease {id}", Exit.NOT_FOUND, fix="see gpubid lease list --all")
    if state == "closed":
        raise CommandFailed(f"lease {id} is closed already", Exit.CONFLICT, fix="see gpubid lease list")


def _named(text: str, owner: str) -> tuple[int, int | None]:
    """(dseq, gseq) of a lease id, or (dseq, None) of a dseq alone. CommandFailed where it is another's, or neither."""
    if "/" not in text:
        return dseq_of(text, owner), None
    if not is_lease_id(text):
        raise CommandFailed(f"{text!r} names no lease", Exit.USAGE, fix="see gpubid lease list")
    return dseq_of(text, owner), int(text.split("/")[2])
