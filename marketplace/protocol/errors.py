"""Codes of the market: 400-699, never renumbered."""

from enum import IntEnum, unique
from types import MappingProxyType
from typing import Final


@unique
class MarketCode(IntEnum):
    """Why the market refused a message."""

    PROVIDER_NOT_FOUND = 400
    HOST_NOT_FOUND = 401
    BID_NOT_FOUND = 402
    BID_EXPIRED = 403
    OFFER_REFUSED = 404
    DEVICE_CLAIMED = 405
    DEVICE_IN_USE = 406
    TOO_MANY = 407
    HOST_EXISTS = 408
    BOND_TOO_SMALL = 409
    BOND_NOT_FOUND = 410
    DEPLOYMENT_NOT_FOUND = 450
    DEPLOYMENT_EXISTS = 451
    DEPLOYMENT_CLOSED = 452
    GROUP_NOT_FOUND = 453
    GROUP_REFUSED = 454
    ORDER_NOT_FOUND = 455
    ORDER_NOT_OPEN = 456
    BID_DOES_NOT_FIT = 457
    DEPOSIT_TOO_SMALL = 458
    LIMIT_REFUSED = 459
    LEASE_NOT_FOUND = 500
    LEASE_NOT_OPEN = 501
    GENERATION_MISMATCH = 502
    REPORT_REFUSED = 503
    DEVICES_MISMATCH = 504
    ATTESTATION_NOT_FOUND = 550


MARKET_HTTP_STATUS: Final = MappingProxyType(
    {
        MarketCode.PROVIDER_NOT_FOUND: 404,
        MarketCode.HOST_NOT_FOUND: 404,
        MarketCode.BID_NOT_FOUND: 404,
        MarketCode.DEVICE_CLAIMED: 409,
        MarketCode.DEVICE_IN_USE: 409,
        MarketCode.HOST_EXISTS: 409,
        MarketCode.BOND_TOO_SMALL: 402,
        MarketCode.BOND_NOT_FOUND: 404,
        MarketCode.DEPLOYMENT_NOT_FOUND: 404,
        MarketCode.DEPLOYMENT_EXISTS: 409,
        MarketCode.DEPLOYMENT_CLOSED: 409,
        MarketCode.GROUP_NOT_FOUND: 404,
        MarketCode.ORDER_NOT_FOUND: 404,
        MarketCode.ORDER_NOT_OPEN: 409,
        MarketCode.LEASE_NOT_FOUND: 404,
        MarketCode.LEASE_NOT_OPEN: 409,
        MarketCode.GENERATION_MISMATCH: 409,
        MarketCode.ATTESTATION_NOT_FOUND: 404,
    }
)
