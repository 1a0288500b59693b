"""The standing bid follows facts that stay, and nothing else."""

import msgspec
import pytest

from ledger.protocol.errors import Rejected
from ledger.protocol.messages import Message
from marketplace.protocol.errors import MarketCode
from marketplace.protocol.messages import CancelBid, Heartbeat, PutBid, RegisterHost, RegisterProvider
from marketplace.protocol.resources import Terms
from provider.bidder import BID_MS, GIB, Bidder, Standing, round_down, steady
from provider.inventory.models import Snapshot
from provider.inventory.snapshot import probe
from provider.leases.ledger import LedgerUnreachable
from provider.pricing import EXAMPLE, PriceFileWrong, PriceList, parse

PRICES = parse(EXAMPLE, "example")


class FakeBook:
    """The book in memory."""

    def __init__(self) -> None:
        self.chain_id = "test"
        self.time_ms = 1_000_000
        self.now = Standing()
        self.sent: list[Message] = []
        self.down = False
        self.bonded = True

    def now_ms(self) -> int:
        """Block time."""
        return self.time_ms

    def standing(self) -> Standing:
        """What it holds."""
        if self.down:
            raise LedgerUnreachable("down")
        return self.now

    def send(self, *messages: Message) -> None:
        """Apply as the market does."""
        if self.down:
            raise LedgerUnreachable("down")
        if not self.bonded and any(isinstance(message, PutBid) for message in messages):
            raise Rejected(MarketCode.BOND_TOO_SMALL, "post more")
        for message in messages:
            self.sent.append(message)
            match message:
                case RegisterProvider():
                    assert message.version == self.now.version
                    self.now = Standing(
                        message.endpoint,
                        message.gateway_key,
                        message.attributes,
                        message.version + 1,
                        self.now.host,
                        self.now.bid,
                    )
                case RegisterHost():
                    self.now = msgspec.structs.replace(self.now, host=True)
                case PutBid():
                    assert message.version == (self.now.bid.version if self.now.bid else 0)
                    bid = msgspec.structs.replace(message, version=message.version + 1)
                    self.now = msgspec.structs.replace(self.now, bid=bid)
                case CancelBid():
                    self.now = msgspec.structs.replace(self.now, bid=None)


class Bench:
    """A bidder with everything in the test's hands."""

    def __init__(self, book: FakeBook, prices: PriceList = PRICES) -> None:
        self.book = book
        self.snapshot: Snapshot = msgspec.structs.replace(
            probe(("h100:2", "rtx4090:1"), seed="test"), memory=50 * GIB, disk=500 * GIB
        )
        self.healthy = True
        self.seconds = 0.0
        self.bidder = Bidder(
            book, host="h", endpoint="https://h:1", gateway_key="0" * 64, prices=prices, look=lambda: self.snapshot,
            healthy=lambda: self.healthy, monotonic_s=lambda: self.seconds,
        )  # fmt: skip

    def tick(self, seconds: float = 61) -> list[str]:
        """Time passes; names of what was sent."""
        before = len(self.book.sent)
        self.seconds += seconds
        self.book.time_ms += int(seconds * 1000)
        self.bidder.tick()
        return [type(m).__name__ for m in self.book.sent[before:]]


def test_first_start_registers_and_bids() -> None:
    """A new provider registers, names its host and bids, in one transaction; then it only beats."""
    bench = Bench(FakeBook())

    assert bench.tick() == ["RegisterProvider", "RegisterHost", "PutBid"]
    assert bench.tick() == ["Heartbeat"]
    assert bench.tick(5) == []
    assert isinstance(bench.book.sent[-1], Heartbeat)
    bid = bench.book.now.bid
    assert bid is not None
    assert [d.model for d in bid.offer.devices] == ["h100", "h100", "rtx4090"]
    assert all(d.simulated for d in bid.offer.devices)
    assert bid.offer.storage["ephemeral"] == round_down(500 * GIB * 80 // 100 * 60 // 100)


def test_a_restart_changes_nothing() -> None:
    """With the same facts a new daemon sends a heartbeat and no more."""
    book = FakeBook()
    Bench(book).tick()

    assert Bench(book).tick() == ["Heartbeat"]


def test_wandering_disk_does_not_stir_the_book() -> None:
    """Free disk that comes and goes between looks changes no bid; half of it gone does."""
    bench = Bench(FakeBook())
    bench.tick()
    for disk in (480, 460, 520, 400, 499):
        bench.snapshot = msgspec.structs.replace(bench.snapshot, disk=disk * GIB + 12345)
        assert bench.tick() == ["Heartbeat"]

    bench.snapshot = msgspec.structs.replace(bench.snapshot, disk=100 * GIB)
    assert bench.tick() == ["PutBid"]
    assert bench.tick() == ["Heartbeat"]


def test_a_device_that_goes_leaves_the_bid_at_once() -> None:
    """A changed set of devices is bid without waiting for the next look at the book."""
    bench = Bench(FakeBook())
    bench.tick()
    bench.snapshot = msgspec.structs.replace(bench.snapshot, devices=bench.snapshot.devices[1:])

    assert bench.tick(1) == ["PutBid"]
    bid = bench.book.now.bid
    assert bid is not None
    assert len(bid.offer.devices) == 2


def test_a_bid_is_renewed_before_it_ends() -> None:
    """At half its life a bid is put again; one that the market dropped is put again too."""
    bench = Bench(FakeBook())
    bench.tick()
    assert bench.tick(BID_MS / 2000 + 61) == ["PutBid"]

    bench.book.now = msgspec.structs.replace(bench.book.now, bid=None)
    bench.bidder.hurry()
    assert bench.tick(1) == ["PutBid"]


def test_without_an_engine_there_is_no_bid() -> None:
    """While leases could not be started the bid is withdrawn; it comes back with the engine."""
    bench = Bench(FakeBook())
    bench.tick()
    bench.healthy = False
    assert bench.tick() == ["CancelBid"]
    assert bench.tick() == ["Heartbeat"]
    bench.healthy = True
    assert bench.tick() == ["PutBid"]


def test_the_ledger_may_go_and_come() -> None:
    """What could not be sent is sent at a later pass."""
    bench = Bench(FakeBook())
    bench.book.down = True
    with pytest.raises(LedgerUnreachable):
        bench.tick()
    bench.book.down = False
    assert bench.tick(1) == ["RegisterProvider", "RegisterHost", "PutBid"]


def test_a_refused_bid_silences_nobody() -> None:
    """Without enough bond there is no bid; the gateway is registered all the same, and the host goes on beating."""
    bench = Bench(FakeBook())
    bench.book.bonded = False
    for expected in (["RegisterProvider", "RegisterHost"], ["Heartbeat"], ["Heartbeat"]):
        before = len(bench.book.sent)
        with pytest.raises(Rejected):
            bench.tick()
        assert [type(m).__name__ for m in bench.book.sent[before:]] == expected
    bench.book.bonded = True
    assert bench.tick() == ["PutBid"]


def test_rounding() -> None:
    """Sizes are coarse, and stay while what is found lies within a third."""
    assert [round_down(n * GIB + 5) // GIB for n in (0, 1, 63, 64, 79, 80)] == [0, 1, 63, 64, 64, 80]
    assert [steady(100, n) for n in (60, 70, 100, 140, 160)] == [60, 100, 100, 100, 160]
    assert steady(0, 7) == 7


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("cpu = 'x'", "cpu must be a number"),
        ("cpu = 0.0000001", "six decimals"),
        ("cpu = -1", "0 or more"),
        ("cpu = nan", "cpu"),
        ("cpu = true", "cpu must be a number"),
        ("cqu = 1", "knows no 'cqu'"),
        ("[gpu]\nH100 = 1", "gpu"),
        ("gpu = 1", r"write \[gpu\]"),
        ("[offer]\ncpu_percent = 101", "0 to 100"),
        ("[offer.disk_classes]\na = 60\nb = 60", "more than 100"),
        ("denomination = 'U'", "denomination"),
        ("[attributes]\nregion = 5", "attributes"),
        ("cpu =", "Invalid value"),
    ],
)
def test_a_wrong_price_file_is_named(text: str, says: str) -> None:
    """What is wrong in a price file is said with its place, and nothing is rounded away."""
    with pytest.raises(PriceFileWrong, match=says):
        parse(text, "prices.toml")


def test_prices_are_exact() -> None:
    """Credits become micro-units without a float between."""
    found = parse("cpu = 0.1\nmemory = 3\n[gpu]\nh100 = 2.345678\n[storage]\n'*' = '0.000001'", "p")

    assert (found.prices.cpu, found.prices.memory, found.prices.gpu["h100"]) == ("100000", "3000000", "2345678")
    assert found.prices.storage == {"*": "1", "ram": "2000"}


def test_terms_of_the_price_file_reach_the_bid() -> None:
    """Minutes, hours and credits become the bid's terms; without a shortest duration the field is left out, as before."""
    terms = parse("[terms]\nhold = 0.5\nmin_duration_minutes = 90\nmax_duration_hours = 2\n", "x").terms
    assert terms == Terms(hold_per_hour="500000", max_duration_ms=7_200_000, min_duration_ms=5_400_000)
    assert PRICES.terms == Terms()
    assert b"min_duration_ms" not in msgspec.json.encode(PRICES.terms)
    for wrong, says in (
        ("min_duration_minutes = 121\nmax_duration_hours = 2", "longer than terms.max_duration_hours"),
        ("min_duration_minutes = 1.5", "min_duration_minutes must be a whole number"),
        ("max_duration_hours = true", "max_duration_hours must be a whole number"),
    ):
        with pytest.raises(PriceFileWrong, match=says):
            parse(f"[terms]\n{wrong}\n", "x")
