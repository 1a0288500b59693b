"""The market as a ledger module: its tables, messages, scheduled kinds, parameters, and steps of a block."""

from collections.abc import Callable, Mapping
from typing import Any, Final

from ledger.machine.context import Context
from ledger.machine.module import Bounds, Handler, Plain, Since
from ledger.machine.store import Store, Table
from ledger.protocol.messages import Message
from marketplace.market import (
    bids,
    bonds,
    deployments,
    funding,
    invariants,
    leases,
    liveness,
    matching,
    offers,
    orders,
    pulls,
    registry,
    reports,
    tables,
)
from marketplace.market.book import Book
from marketplace.market.parameters import PARAMETERS, PARAMETERS_SINCE
from marketplace.protocol import messages as m

HANDLERS: Final[Mapping[type[Message], Handler]] = {
    m.RegisterProvider: registry.register_provider,
    m.RegisterHost: registry.register_host,
    m.PutBid: bids.put_bid,
    m.CancelBid: bids.cancel_bid,
    m.PostBond: bonds.post_bond,
    m.WithdrawBond: bonds.withdraw_bond,
    m.Heartbeat: liveness.heartbeat,
    m.ReportPulling: reports.report_pulling,
    m.ReportActive: reports.report_active,
    m.ReportDown: reports.report_down,
    m.ReportUp: reports.report_up,
    m.Release: reports.release,
    m.CloseLease: reports.close_lease,
    m.CreateDeployment: deployments.create_deployment,
    m.UpdateDeployment: deployments.update_deployment,
    m.TakeBid: deployments.take_bid,
    m.CloseDeployment: deployments.close_deployment,
    m.CloseGroup: deployments.close_group,
    m.Attest: registry.attest,
    m.Retract: registry.retract,
}

SINCE: Final[Mapping[type[Message], Since]] = {m.CreateDeployment: deployments.since, m.ReportPulling: 2}


class Market(Plain):
    """The market's law. One instance serves one machine: its book is a cache of that machine's state."""

    name = "market"
    tables: tuple[Table[Any], ...] = tables.TABLES
    messages: Mapping[type[Message], Handler] = HANDLERS
    since: Mapping[type[Message], Since] = SINCE
    parameters: Mapping[str, Bounds] = PARAMETERS
    parameters_since: Mapping[str, int] = PARAMETERS_SINCE

    def __init__(self) -> None:
        self.book: Book | None = None
        self.kinds: Mapping[str, Callable[[Context, str], None]] = {
            offers.COUNTS: self._counts,
            offers.EXPIRY: bids.expire,
            bonds.COOLED: bonds.cooled,
            orders.DEADLINE: orders.deadline,
            liveness.SILENCE: liveness.silence,
            liveness.TICK: liveness.tick,
            leases.ACTIVATION: liveness.activation,
            leases.DOWN: liveness.down_too_long,
            leases.TERM: liveness.term_over,
            pulls.HOLD: pulls.free_time_over,
            matching.MORE: _nothing,
        }

    def rebuild(self, store: Store) -> None:
        """Build the book from state."""
        self.book = Book(store)

    def begin_block(self, ctx: Context) -> None:
        """Find out whether the chain stood still."""
        liveness.gap(ctx)

    def end_block(self, ctx: Context) -> None:
        """Match."""
        matching.clear(ctx, self._book())

    def on_purse(self, ctx: Context, purse: str, what: str) -> None:
        """Pause, resume or close the deployment; the ledger itself tells of a warning."""
        if what == "dry":
            funding.ran_dry(ctx, purse)
        elif what == "funded":
            funding.funded(ctx, purse)
            for order in ctx.store.find(tables.ORDERS, "open", purse):
                self._book().look_again(tables.order_key(order))
        elif what == "deposited":
            for order in ctx.store.find(tables.ORDERS, "open", purse):
                # Over a wide book not every bid was told: one with a shortest term may have lacked funds.
                if "funds" in order.refusals or ("not_tested" in order.refusals and order.group.most_bound_ms):
                    self._book().look_again(tables.order_key(order))
        elif what == "grace_over":
            funding.grace_over(ctx, purse)

    def invariants(self, store: Store) -> None:
        """Check the state, and the book against one built anew."""
        invariants.check(store)
        book = self._book()
        book.refresh()
        assert book.picture() == Book(store, follow=False).picture(), "the order book differs from one built from state"

    def _book(self) -> Book:
        assert self.book is not None, "the machine builds the book before its first block"
        return self.book

    def _counts(self, ctx: Context, key: str) -> None:
        del ctx
        self._book().gained(key)


def _nothing(ctx: Context, id: str) -> None:
    """A block is all that was wanted."""
    del ctx, id
