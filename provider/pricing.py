"""The price file: what the operator asks for, in credits an hour, read exactly into the market's micro-units."""

import tomllib
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, Final

import msgspec

from ledger.protocol.money import MAX_AMOUNT, Denomination
from marketplace.protocol.resources import Attributes, Prices, Terms

MICRO: Final = 1_000_000

EXAMPLE: Final = """\
# Prices of this host. Every price is in credits an hour (1 credit = 1,000,000 micro-credits), up to six decimals.
# What is left out has the value shown here. Give the file with: gpubid provider start --price-file prices.toml

denomination = "ucredit"       # the money that is taken
cpu = 0.010000                 # one processor (1,000 mCPU)
memory = 0.002000              # one GiB of memory
port = 0.000000                # one published port

[gpu]                          # one device, by model; "*" is any other model
"*" = 0.300000
rtx3090 = 0.150000
rtx4090 = 0.350000
a100 = 1.100000
h100 = 2.100000
h200 = 2.800000
b200 = 4.500000

[storage]                      # one GiB by class; "*" is any other class
"*" = 0.000100
ram = 0.002000

[terms]
hold = 0.000000                # while an image is pulled for longer than promised
max_duration_hours = 0         # longest lease; 0: no end
min_duration_minutes = 0       # shortest lease: who ends one before pays for it; only tenants who accept it come

[offer]                        # how much of the host is offered
cpu_percent = 100
memory_percent = 100           # of what is left beside a reserve for the host
disk_percent = 80              # of the disk that is free

[offer.disk_classes]           # how the offered disk is divided, in percent
ephemeral = 60
default = 10
beta1 = 10
beta2 = 10
beta3 = 10

[attributes]                   # claims about the provider, for placement attributes of deployment files
# region = "eu-west"
"""


class PriceFileWrong(Exception):
    """The price file cannot be used: where and why."""

    exit_code = 2

    def __init__(self, path: str, detail: str) -> None:
        super().__init__(f"price file {path}: {detail}")
        self.fix = "compare it with the example: gpubid provider prices"


class PriceList(msgspec.Struct, frozen=True):
    """A price file, read. Percentages are of what the host has to offer."""

    denomination: Denomination
    prices: Prices
    terms: Terms
    cpu_percent: int
    memory_percent: int
    disk_percent: int
    disk_classes: dict[str, int]
    attributes: Attributes


def load(path: Path | None) -> PriceList:
    """The price file at `path`, or the defaults; PriceFileWrong says what to mend."""
    if path is None:
        return parse(EXAMPLE, "(built in)")
    try:
        return parse(path.read_text(), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise PriceFileWrong(str(path), f"cannot be read: {error}") from None


def parse(text: str, name: str) -> PriceList:
    """A price file from its text; `name` is for messages."""
    defaults = tomllib.loads(EXAMPLE, parse_float=Decimal)
    try:
        given = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise PriceFileWrong(name, str(error)) from None
    try:
        return _read(given, defaults)
    except (ValueError, msgspec.ValidationError) as error:
        raise PriceFileWrong(name, str(error)) from None


def _read(given: dict[str, Any], defaults: dict[str, Any]) -> PriceList:
    _known("the file", given, defaults)
    tables: dict[str, dict[str, Any]] = {}
    for key in ("gpu", "storage", "terms", "offer", "attributes"):
        table = given.get(key, {})
        if not isinstance(table, dict):
            raise ValueError(f"{key} must be a table: write [{key}]")
        tables[key] = table
    _known("[terms]", tables["terms"], defaults["terms"])
    _known("[offer]", tables["offer"], defaults["offer"])
    offer = defaults["offer"] | tables["offer"]
    terms = defaults["terms"] | tables["terms"]
    flat = defaults | given
    classes = {str(k): _percent(f"offer.disk_classes.{k}", v) for k, v in offer["disk_classes"].items()}
    if sum(classes.values()) > 100:
        raise ValueError("offer.disk_classes add up to more than 100")
    prices = Prices(
        cpu=_price("cpu", flat["cpu"]),
        memory=_price("memory", flat["memory"]),
        port=_price("port", flat["port"]),
        gpu={k: _price(f"gpu.{k}", v) for k, v in (defaults["gpu"] | tables["gpu"]).items()},
        storage={k: _price(f"storage.{k}", v) for k, v in (defaults["storage"] | tables["storage"]).items()},
    )
    found = PriceList(
        denomination=flat["denomination"],
        prices=prices,
        terms=_terms(terms),
        cpu_percent=_percent("offer.cpu_percent", offer["cpu_percent"]),
        memory_percent=_percent("offer.memory_percent", offer["memory_percent"]),
        disk_percent=_percent("offer.disk_percent", offer["disk_percent"]),
        disk_classes=classes,
        attributes=tables["attributes"],
    )
    # What the ledger would refuse is refused here, with its place.
    msgspec.convert(msgspec.to_builtins(found.prices), Prices)
    return msgspec.convert(msgspec.to_builtins(found), PriceList)


def _terms(given: dict[str, Any]) -> Terms:
    hours, minutes = given["max_duration_hours"], given["min_duration_minutes"]
    for name, value, none in (("max_duration_hours", hours, "no end"), ("min_duration_minutes", minutes, "none")):
        if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**6:
            raise ValueError(f"terms.{name} must be a whole number, 0 for {none}")
    longest, shortest = hours * 3_600_000, minutes * 60_000
    if longest and shortest > longest:
        raise ValueError("terms.min_duration_minutes is longer than terms.max_duration_hours")
    hold = _price("terms.hold", given["hold"])
    return Terms(hold_per_hour=hold, max_duration_ms=longest, min_duration_ms=shortest or msgspec.UNSET)


def _known(where: str, given: dict[str, Any], defaults: dict[str, Any]) -> None:
    unknown = sorted(given.keys() - defaults.keys())
    if unknown:
        raise ValueError(f"{where} knows no {unknown[0]!r}; it knows {', '.join(sorted(defaults))}")


def _price(name: str, value: Any) -> str:
    """Credits an hour as a decimal string of micro-units; nothing is rounded."""
    try:
        if isinstance(value, bool) or not isinstance(value, int | Decimal | str):
            raise InvalidOperation
        micro = Decimal(value) * MICRO
        if not micro.is_finite() or micro != micro.to_integral_value():
            raise ValueError(f"{name} has more than six decimals")
    except InvalidOperation:
        raise ValueError(f"{name} must be a number of credits an hour") from None
    if not 0 <= micro <= MAX_AMOUNT:
        raise ValueError(f"{name} must be 0 or more, and within reason")
    return str(int(micro))


def _percent(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 100:
        raise ValueError(f"{name} must be a whole number from 0 to 100")
    return value
