"""NVLink islands: which cards reach each other over links, however many hops."""

import hashlib
from collections.abc import Iterable
from typing import NamedTuple


class Link(NamedTuple):
    """Two ends that are joined: UUIDs of cards, or a switch by any other name."""

    one: str
    other: str


def islands(links: Iterable[Link]) -> dict[str, str]:
    """UUID → name of its island, the same on every probe while its members are the same; none for a card alone."""
    leader: dict[str, str] = {}

    def find(end: str) -> str:
        while leader.setdefault(end, end) != end:
            end = leader[end]
        return end

    for link in links:
        one, other = find(link.one), find(link.other)
        if one != other:
            leader[max(one, other)] = min(one, other)
    members: dict[str, list[str]] = {}
    for end in sorted(leader):
        if not end.startswith("switch "):
            members.setdefault(find(end), []).append(end)
    named: dict[str, str] = {}
    for cards in members.values():
        if len(cards) > 1:
            name = "nvlink-" + hashlib.sha256(",".join(cards).encode()).hexdigest()[:8]
            named.update(dict.fromkeys(cards, name))
    return named
