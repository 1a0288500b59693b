"""Prices: integers, exact, rounded up once."""

from fractions import Fraction
from math import ceil

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ledger.protocol.errors import Code, Rejected
from marketplace.market.pricing import Need, PriceList, ask_per_hour, need_of, price_list
from marketplace.market.words import money, size
from marketplace.protocol.resources import Volume
from tests.marketplace.market.world import CREDIT, GIB, gpu, group, prices, unit

amounts = st.integers(0, 10**12)


@given(
    cpu=st.integers(0, 10**7), memory=st.integers(0, 2**50), ram=st.integers(0, 2**50), disk=st.integers(0, 2**50),
    ports=st.integers(0, 60_000), gpus=st.integers(0, 64), unit_prices=st.tuples(*[amounts] * 6),
)  # fmt: skip
def test_the_ask_is_rounded_up_once(
    cpu: int, memory: int, ram: int, disk: int, ports: int, gpus: int, unit_prices: tuple[int, ...]
) -> None:
    """It equals the exact sum of fractions, rounded up at the end and nowhere before."""
    cpu_price, gpu_price, memory_price, port_price, ram_price, disk_price = unit_prices
    need = Need(
        cpu_milli=cpu, gpus=gpus, memory=memory + ram, plain_memory=memory, ports=ports, ram=ram, storage={"ephemeral": disk}
    )
    listed = PriceList(
        cpu=cpu_price, gpu={"h100": gpu_price}, memory=memory_price, port=port_price, storage={"ram": ram_price, "*": disk_price}
    )
    exact = (
        Fraction(cpu * cpu_price, 1_000)
        + Fraction(memory * memory_price + ram * ram_price + disk * disk_price, GIB)
        + gpus * gpu_price
        + ports * port_price
    )
    assert ask_per_hour(need, listed, {"h100": gpus} if gpus else {}) == ceil(exact)


def test_what_all_replicas_need() -> None:
    """Every replica counts, and memory-backed volumes are memory at the host and storage in price."""
    web = unit(gpu(2), count=3, cpu_milli=500, memory=GIB, ports=2, volumes=(Volume(size=7), Volume(size=5, storage_class="ram")))
    need = need_of(group(web, unit(cpu_milli=1)))
    assert need == Need(
        cpu_milli=1_501, gpus=6, memory=4 * GIB + 15, plain_memory=4 * GIB, ports=6, ram=15, storage={"ephemeral": 21}
    )


def test_a_model_without_a_price_is_not_for_sale() -> None:
    """A named price goes before `*`; without either there is no ask."""
    listed = price_list(prices(gpu=5, h100=9))
    assert (listed.of_gpu("h100"), listed.of_gpu("l4")) == (9, 5)
    bare = PriceList(cpu=0, gpu={"h100": 1}, memory=0, port=0, storage={})
    assert ask_per_hour(need_of(group(unit(gpu(1)))), bare, {"l4": 1}) is None
    assert ask_per_hour(need_of(group(unit(volumes=(Volume(size=1, storage_class="ram"),)))), bare, {}) is None


def test_amounts_are_bounded() -> None:
    """A unit price over the largest amount is refused."""
    with pytest.raises(Rejected) as caught:
        price_list(prices(cpu=2**63))
    assert caught.value.code is Code.AMOUNT_REFUSED


def test_words() -> None:
    """Money and sizes as people read them."""
    assert money(2_500_000, "ucredit") == "2.500000 credits/h"
    assert money(CREDIT // 10**6, "uact") == "0.000001 act/h"
    assert [size(n) for n in (0, 1, 1024, 5 * 2**20, 3 * GIB)] == ["0 bytes", "1 bytes", "1 KiB", "5 MiB", "3 GiB"]
