"""What a refusal says to a person: what came closest, and the cheapest remedy."""

from typing import Final

from marketplace.market.placement import RANK, Miss
from marketplace.protocol.resources import Group

_MICRO: Final = 10**6


def money(amount: int, denomination: str) -> str:
    """An hourly amount of micro-units in whole units with six digits: `2.500000 credits/h`."""
    name = "credits" if denomination == "ucredit" else denomination.removeprefix("u")
    return f"{amount // _MICRO}.{amount % _MICRO:06d} {name}/h"


def size(amount: int) -> str:
    """Bytes in the largest unit that is exact."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if amount and amount % (1 << shift) == 0:
            return f"{amount >> shift} {unit}"
    return f"{amount} bytes"


def duration(ms: int) -> str:
    """Milliseconds in the largest unit that is exact: `24h`, `90m`."""
    for unit, name in ((3_600_000, "h"), (60_000, "m"), (1_000, "s")):
        if ms % unit == 0:
            return f"{ms // unit}{name}"
    return f"{ms}ms"


def closeness(miss: Miss) -> tuple[int, int, str]:
    """Sort key: the later the failed test and the less is missing, the nearer."""
    return (-RANK[miss.test], abs(miss.has - miss.asked), miss.entry.key)


def asked_models(group: Group) -> str:
    """The models a group asks for, as a person writes them."""
    names = []
    for unit in group.resources:
        for model in unit.gpu.models if unit.gpu else ():
            name = model.model or f"any {model.vendor}"
            name += f" {model.ram_mib // 1024}Gi" if model.ram_mib else ""
            name += f" {model.interface}" if model.interface else ""
            if name not in names:
                names.append(name)
    return " or ".join(names)


def nearest(miss: Miss | None, group: Group, denomination: str, books: int, protocol: int) -> str:
    """One sentence: the nearest miss with its cheapest remedy. `books` is how many bids there are at all.

    It stands in waiting orders, so another wording needs another `protocol`.
    """
    if miss is None or miss.test == "gpu_model":
        return "no bid is in the book" if not books else f"no bid offers {asked_models(group)}"
    who = f"host {miss.entry.bid.host} of {miss.entry.bid.provider}"
    has, asked = miss.has, miss.asked
    if miss.test == "duration" and protocol >= 2:
        if miss.word == "least":
            return f"{who} leases for at least {duration(has)}, {duration(asked)} accepted: accept {duration(has)}"
        return f"{who} leases for at most {duration(has)}, {duration(asked)} needed: shorten that"
    if miss.test == "duration" and miss.word == "least":
        return f"{who} leases for at least {has} ms, {asked} ms asked: ask for that duration"
    texts = {
        "denomination": f"{who} takes {miss.word}, not {denomination}: pay in {miss.word}",
        "silent": f"{who} is silent: wait for its next heartbeat",
        "not_yet": f"{who} counts from the next block: wait",
        "avoided": f"{who} ended a lease of this group: wait for its next bid",
        "duration": f"{who} leases for at most {has} ms, {asked} ms asked: shorten the duration",
        "attributes": f"{who} lacks attribute {miss.word}: drop it",
        "signed_by": f"{who} is not attested by {miss.word}: drop the auditor",
        "cpu": f"{who} has {has} mCPU free, {asked} asked: ask for less",
        "memory": f"{who} has {size(has)} of memory free, {size(asked)} asked: ask for less",
        "storage": f"{who} has {size(has)} of {miss.word} storage free, {size(asked)} asked: ask for less",
        "ports": f"{who} has {has} ports free, {asked} asked: publish fewer",
        "gpu": f"{who} has {has} fitting GPUs free, {asked} asked: ask for fewer, or wait",
        "price": f"{who} fits but asks {money(has, denomination)}, limit {money(asked, denomination)}: raise the limit",
        "funds": f"{who} fits; its shortest duration costs {asked} micro-units, {has} are free in the purse: deposit to it",
    }
    return texts[miss.test]
