"""`gpubid tenant`: the REST gateway of an account."""

import click

from ledger.cli.home import from_option, home_option, home_path, node_option
from ledger.cli.logs import log_to_stderr
from ledger.cli.unlock import unlock_key


@click.group()
def tenant() -> None:
    """Serve deployments over REST."""


@tenant.command("serve", short_help="Serve the key's account on loopback.")
@click.option(
    "--listen", envvar="GPUBID_TENANT_LISTEN", default="127.0.0.1:8090", show_default=True, help="HOST:PORT; port 0 picks one."
)
@click.option("--insecure-listen", is_flag=True, help="Allow an address that others reach, without TLS.")
@from_option
@node_option
@home_option
def serve(listen: str, insecure_listen: bool, key_name: str, node: str) -> None:
    """Serve the key's account on loopback, with a bearer key that is made at the first start."""
    from tenant.api.server import serve as run

    log_to_stderr()
    info, seed = unlock_key(key_name)
    run(listen, node, seed, home_path() / "tenant", principal=info.address, open_to_others=insecure_listen)
