"""`gpubid market`: what is offered, wanted and leased."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import click

from ledger.cli.home import node_option
from ledger.cli.output import credits, emit, output_option
from marketplace.cli.terms import in_words

Json = dict[str, Any]
GIB = 2**30


@click.group()
def market() -> None:
    """See bids, orders, leases, providers and hosts."""


def _list(
    node: str, output: str, what: str, query: Mapping[str, Any], headers: Sequence[str], row: Callable[[Json], list[Any]]
) -> None:
    from marketplace.client import NodeClient

    with NodeClient(node) as client:
        found: list[Json] = getattr(client, what)(**query)
    names = [str(item.get("id") or item.get("address")) for item in found]
    emit(output, found, headers=headers, rows=[row(item) for item in found], names=names)


def _devices(bid: Json) -> str:
    """`2/4×h100` free of all by model, and whether they are simulated."""
    text = " ".join(f"{bid['free'][model]}/{count}×{model}" for model, count in bid["models"].items())
    return (text or "none") + (" (simulated)" if bid["simulated"] else "")


def _prices(bid: Json) -> str:
    return " ".join(f"{model}={credits(price)}" for model, price in sorted(bid["prices"]["gpu"].items())) or "–"


@market.command("bids", short_help="List the bids in the book, with GPUs free and prices.")
@click.option("--provider", help="Of this provider only.")
@click.option("--model", help="With this GPU model (slug) only.")
@node_option
@output_option
def bids(provider: str | None, model: str | None, node: str, output: str) -> None:
    """List the bids in the book: GPUs free of all, prices in credits an hour, durations, hold of long pulls."""
    headers = ("PROVIDER", "HOST", "GPUS FREE/ALL", "GPU/H", "CPU/H", "MEM/GIB/H", "CPUS", "MEM GIB", "TERMS", "STATE", "VERSION")

    def row(bid: Json) -> list[Any]:
        offer, prices = bid["offer"], bid["prices"]
        state = "silent" if bid["silent"] else "open"
        size = [offer["cpu_milli"] // 1000, offer["memory"] // GIB]
        asks = [_prices(bid), credits(prices["cpu"]), credits(prices["memory"])]
        terms = bid["terms"]
        agreed = in_words(terms.get("min_duration_ms", 0), terms["max_duration_ms"], terms["hold_per_hour"])
        return [bid["provider"], bid["host"], _devices(bid), *asks, *size, agreed, state, bid["version"]]

    _list(node, output, "bids", {"provider": provider, "model": model}, headers, row)


def _wanted(order: Json) -> str:
    parts = []
    for unit in order["group"]["resources"]:
        gpu = unit.get("gpu")
        kinds = "|".join(m.get("model") or m["vendor"] for m in gpu["models"]) if gpu else "cpu"
        parts.append(f"{unit['count']}×{gpu['count']}×{kinds}" if gpu else f"{unit['count']}×{kinds}")
    return " ".join(parts)


@market.command("orders")
@click.option("--owner", help="Of this account only.")
@click.option("--state", type=click.Choice(["open", "matched", "closed"]), help="In this state only.")
@node_option
@output_option
def orders(owner: str | None, state: str | None, node: str, output: str) -> None:
    """List orders; for one that waits, what came closest."""
    headers = ("ORDER", "STATE", "GROUP", "WANTS", "NEAREST MISS")

    def row(order: Json) -> list[Any]:
        return [order["id"], order["state"], order["group"]["name"], _wanted(order), order["nearest"] or order["reason"] or "–"]

    _list(node, output, "orders", {"owner": owner, "state": state}, headers, row)


@market.command("leases")
@click.option("--owner", help="Of this tenant only.")
@click.option("--provider", help="Of this provider only.")
@click.option(
    "--state", type=click.Choice(["matched", "active", "down", "paused", "closed", "unreleased"]), help="In this state only."
)
@node_option
@output_option
def leases(owner: str | None, provider: str | None, state: str | None, node: str, output: str) -> None:
    """List leases of the whole market, with rate and cost in credits."""
    headers = ("LEASE", "HOST", "STATE", "GPUS", "RATE/H", "COST", "UP S", "RELEASED", "REASON")

    def row(lease: Json) -> list[Any]:
        gpus = f"{len(lease['devices'])}{' (simulated)' if lease['simulated'] else ''}"
        money = [credits(lease["rate_per_hour"]), credits(lease["cost"]), lease["up_ms"] // 1000]
        return [
            lease["id"],
            lease["host"],
            lease["state"],
            gpus,
            *money,
            "yes" if lease["released"] else "no",
            lease["reason"] or "–",
        ]

    _list(node, output, "leases", {"owner": owner, "provider": provider, "state": state}, headers, row)


@market.command("providers")
@node_option
@output_option
def providers(node: str, output: str) -> None:
    """List providers."""

    def row(found: Json) -> list[Any]:
        attributes = ",".join(f"{k}={v}" for k, v in sorted(found["attributes"].items())) or "–"
        return [
            found["address"],
            found["endpoint"],
            len(found["hosts"]),
            found["open_leases"],
            found["leases_closed"],
            attributes,
        ]

    headers = ("PROVIDER", "ENDPOINT", "HOSTS", "OPEN LEASES", "ENDED BY IT", "ATTRIBUTES")
    _list(node, output, "providers", {}, headers, row)


@market.command("hosts")
@click.option("--provider", help="Of this provider only.")
@node_option
@output_option
def hosts(provider: str | None, node: str, output: str) -> None:
    """List hosts, with block time of their last sign of life."""
    headers = ("PROVIDER", "HOST", "STATE", "LAST BEAT MS")
    _list(
        node, output, "hosts", {"provider": provider}, headers,
        lambda h: [h["provider"], h["host"], "silent" if h["silent"] else "alive", h["beat_ms"]],
    )  # fmt: skip
