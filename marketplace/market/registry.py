"""Providers, their hosts, and what auditors say of them."""

from ledger.machine.context import Context
from ledger.protocol.errors import Code, Rejected, require
from marketplace.market import liveness
from marketplace.market.tables import ATTESTATIONS, HOSTS, PROVIDERS, host_key
from marketplace.protocol.errors import MarketCode
from marketplace.protocol.events import Attested, ProviderChanged
from marketplace.protocol.messages import Attest, RegisterHost, RegisterProvider, Retract
from marketplace.protocol.records import Attestation, Host, Provider


def register_provider(ctx: Context, msg: RegisterProvider) -> None:
    """Make the principal a provider, or replace its record."""
    old = ctx.store.get(PROVIDERS, ctx.principal)
    version = old.version if old else 0
    require(msg.version == version, Code.VERSION_MISMATCH, f"the provider's version is {version}")

    ctx.store.put(
        PROVIDERS,
        Provider(
            address=ctx.principal,
            attributes=msg.attributes,
            endpoint=msg.endpoint,
            gateway_key=msg.gateway_key,
            leases_closed=old.leases_closed if old else 0,
            version=version + 1,
        ),
    )
    ctx.emit(ProviderChanged(provider=ctx.principal, version=version + 1))


def register_host(ctx: Context, msg: RegisterHost) -> None:
    """Add a host to the principal."""
    ctx.store.require(PROVIDERS, ctx.principal, MarketCode.PROVIDER_NOT_FOUND)
    key = host_key(ctx.principal, msg.host)
    require(ctx.store.get(HOSTS, key) is None, MarketCode.HOST_EXISTS, msg.host)
    most = ctx.parameter("max_hosts")
    require(ctx.store.count(HOSTS, "provider", ctx.principal) < most, MarketCode.TOO_MANY, f"at most {most} hosts")

    ctx.store.put(HOSTS, Host(beat_ms=ctx.time, bids=0, host=msg.host, provider=ctx.principal, silent=False))
    liveness.watch(ctx, key)


def attest(ctx: Context, msg: Attest) -> None:
    """State attributes of a provider, as an auditor."""
    ctx.store.require(PROVIDERS, msg.provider, MarketCode.PROVIDER_NOT_FOUND)
    old = ctx.store.get(ATTESTATIONS, f"{msg.provider}/{ctx.principal}")
    version = old.version if old else 0
    require(msg.version == version, Code.VERSION_MISMATCH, f"the attestation's version is {version}")

    ctx.store.put(
        ATTESTATIONS,
        Attestation(attributes=msg.attributes, auditor=ctx.principal, provider=msg.provider, version=version + 1),
    )
    ctx.emit(Attested(attributes=msg.attributes, auditor=ctx.principal, provider=msg.provider))


def retract(ctx: Context, msg: Retract) -> None:
    """Take back what the principal attested. Leases that relied on it go on."""
    key = f"{msg.provider}/{ctx.principal}"
    if ctx.store.get(ATTESTATIONS, key) is None:
        raise Rejected(MarketCode.ATTESTATION_NOT_FOUND, key)

    ctx.store.delete(ATTESTATIONS, key)
    ctx.emit(Attested(attributes={}, auditor=ctx.principal, provider=msg.provider))
