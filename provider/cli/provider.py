"""`gpubid provider`: the daemon of a host, and what its operator asks and does."""

import os
import sys

import click

from ledger.cli.failure import CommandFailed, Exit
from ledger.cli.home import from_option, home_option, home_path, node_option
from ledger.cli.logs import log_to_stderr
from ledger.cli.output import credits, emit, output_option, say
from ledger.cli.unlock import keystore, unlock_key
from marketplace.cli.named import is_lease_id
from marketplace.cli.offline import generate_option, identity
from marketplace.cli.sending import transact
from provider.cli.earnings import bond, payout

DEFAULT_DOCKER = "unix:///var/run/docker.sock"


def docker_option(function: "click.decorators.FC") -> "click.decorators.FC":
    """Add `--docker URL` as parameter `docker`."""
    return click.option(
        "--docker", envvar="GPUBID_DOCKER", default=DEFAULT_DOCKER, show_default=True, help="Socket of the Docker Engine."
    )(function)


@click.group()
def provider() -> None:
    """Offer this host's GPUs and run leases on it."""


provider.add_command(bond)
provider.add_command(payout)


@provider.command("start", short_help="Bid, run leases and serve their tenants.")
@node_option
@from_option
@docker_option
@click.option(
    "--listen", envvar="GPUBID_PROVIDER_LISTEN", default="127.0.0.1:8443", show_default=True, help="HOST:PORT of the gateway."
)
@click.option("--public-url", envvar="GPUBID_PUBLIC_URL", default="", help="https://HOST:PORT under which tenants reach it.")
@click.option(
    "--publish-ip", envvar="GPUBID_PUBLISH_IP", default="127.0.0.1", show_default=True, help="Where ports of leases listen."
)
@click.option(
    "--price-file", envvar="GPUBID_PRICE_FILE", type=click.Path(dir_okay=False), help="Prices; see gpubid provider prices."
)
@click.option(
    "--simulate-gpus", "simulate", envvar="GPUBID_SIMULATE_GPUS", multiple=True, help="Devices for rehearsal, such as h100:2."
)
@click.option("--host", envvar="GPUBID_HOST", default="", help="Name of this host on the ledger; the machine's by default.")
@click.option("--restricted", is_flag=True, help="Give containers no capability at all; many images then do not start.")
@home_option
def start(
    node: str,
    key_name: str,
    docker: str,
    listen: str,
    public_url: str,
    publish_ip: str,
    price_file: str | None,
    simulate: tuple[str, ...],
    host: str,
    restricted: bool,
) -> None:
    """Bid, run leases and serve their tenants until stopped; leases run on when it ends."""
    from pathlib import Path

    from provider.config import Settings
    from provider.daemon import serve

    log_to_stderr()
    info, seed = unlock_key(key_name)
    items = tuple(word for item in simulate for word in item.replace(",", " ").split())
    settings = Settings(
        node=node,
        key_name=key_name,
        home=home_path() / "provider",
        docker=docker,
        listen=listen,
        public_url=public_url,
        publish_ip=publish_ip,
        price_file=Path(price_file) if price_file else None,
        simulate=items,
        host=host,
        restricted=restricted,
    )
    if not serve(settings, seed, info.address, lambda line: click.echo(line)):
        # A pull or a call without an answer holds its thread: ending here is what kill -9 does, and as harmless.
        sys.stdout.flush()
        os._exit(0)


@provider.command("doctor", short_help="Look at all that a provider needs, and how to mend it.")
@docker_option
@click.option("--simulate-gpus", "simulate", envvar="GPUBID_SIMULATE_GPUS", multiple=True, help="As for start.")
@home_option
@output_option
def doctor(docker: str, simulate: tuple[str, ...], output: str) -> None:
    """Look at all that a provider needs: what is wrong, and how to mend it."""
    from provider.doctor import run_checks

    checks = run_checks(docker, simulate=bool(simulate))
    failed = [check for check in checks if check.result == "fail"]
    data = [{"name": c.name, "result": c.result, "found": c.found, "mend": c.mend} for c in checks]
    rows = [(c.result, c.name, c.found + (f"  → {c.mend}" if c.mend else "")) for c in checks]
    emit(output, data, headers=("RESULT", "CHECK", "FOUND"), rows=rows, names=[c.name for c in failed])
    if failed:
        unreachable = any(check.name == "engine" for check in failed)
        raise CommandFailed(
            f"{len(failed)} of {len(checks)} checks failed: {', '.join(check.name for check in failed)}",
            Exit.UNREACHABLE if unreachable else Exit.FAILURE,
            fix=failed[0].mend,
        )


@provider.command("prices", short_help="Print an example of a price file, or check one.")
@click.option("--price-file", envvar="GPUBID_PRICE_FILE", type=click.Path(dir_okay=False), help="Check this file instead.")
@output_option
def prices(price_file: str | None, output: str) -> None:
    """Print an example of a price file, or check one and show what the market will see."""
    from pathlib import Path

    from provider.pricing import EXAMPLE, load

    if price_file is None and output == "table":
        click.echo(EXAMPLE, nl=False)
        return
    found = load(Path(price_file) if price_file else None)
    rows = [("cpu", found.prices.cpu), ("memory", found.prices.memory), ("port", found.prices.port)]
    rows += [(f"gpu {model}", price) for model, price in sorted(found.prices.gpu.items())]
    rows += [(f"storage {name}", price) for name, price in sorted(found.prices.storage.items())]
    import msgspec

    data = msgspec.to_builtins(found)
    emit(output, data, headers=("WHAT", "CREDITS AN HOUR"), rows=[(name, credits(price)) for name, price in rows])


@provider.command("leases")
@node_option
@from_option
@click.option("--all", "everything", is_flag=True, help="Also those that are over.")
@home_option
@output_option
def leases(node: str, key_name: str, everything: bool, output: str) -> None:
    """List the leases of this provider."""
    from marketplace.client import NodeClient

    address = keystore().info(key_name).address
    with NodeClient(node) as client:
        found = client.leases(provider=address, **({} if everything else {"state": "unreleased"}))
    rows = [(v["id"], v["state"], v["host"], v["generation"], credits(v["rate_per_hour"]), credits(v["cost"])) for v in found]
    headers = ("LEASE", "STATE", "HOST", "GENERATION", "CREDITS AN HOUR", "COST")
    emit(output, found, headers=headers, rows=rows, names=[v["id"] for v in found])


@provider.command("release", short_help="Say that nothing of a closed lease is left here.")
@click.argument("lease")
@click.option("--close", "closing", is_flag=True, help="End the lease first, with the reason policy; it is counted.")
@generate_option
@node_option
@from_option
@docker_option
@home_option
def release(lease: str, closing: bool, node: str, key_name: str, docker: str) -> None:
    """Say that nothing of a closed LEASE is left on this host, which frees its devices; checked against the engine."""
    from marketplace.client import NodeClient
    from marketplace.protocol.messages import CloseLease, Release

    if not is_lease_id(lease):
        raise CommandFailed(f"{lease!r} names no lease", Exit.USAGE, fix="see gpubid provider leases --all")
    with NodeClient(node) as client:
        view = client.lease(lease)
    if view["state"] != "closed":
        if not closing:
            raise CommandFailed(f"the lease is {view['state']}", Exit.CONFLICT, fix="end it first: add --close")
        end = CloseLease(generation=view["generation"], lease=lease, reason="policy", detail="ended by the operator")
        if transact(node, key_name, end) is not None:
            say(f"closed {lease}; the daemon removes its containers and releases it")
        return
    if view["released"]:
        say(f"{lease} is released already")
        return
    _nothing_left(lease, docker, identity(key_name)[0])
    if transact(node, key_name, Release(clean=True, generation=view["generation"], lease=lease)) is not None:
        say(f"released {lease}")


def _nothing_left(lease: str, docker: str, address: str) -> None:
    """CommandFailed where something of the lease is on the engine still, or the engine does not answer."""
    from provider.runtime.docker import DockerRuntime
    from provider.runtime.port import Unknown

    runtime = DockerRuntime(docker, address)
    try:
        left = lease in runtime.leases()
    except Unknown as error:
        raise CommandFailed(f"no Docker Engine answers at {docker}: {error}", Exit.UNREACHABLE) from None
    finally:
        runtime.close()
    if left:
        raise CommandFailed("its containers, network or volumes are still here", Exit.CONFLICT, fix="let the daemon remove them")
