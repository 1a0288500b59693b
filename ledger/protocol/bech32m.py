"""Bech32m (BIP-350): the text form of an address, with a checksum that finds typing errors."""

from typing import Final

_CHARSET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_CONSTANT: Final = 0x2BC830A3
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)
_MAX_LENGTH: Final = 90


def _step(top: int) -> int:
    """What the five bits that leave the checksum put into it."""
    out = 0
    for bit, generator in enumerate(_GENERATOR):
        if top >> bit & 1:
            out ^= generator
    return out


_STEPS: Final = tuple(_step(top) for top in range(32))


def _polymod(values: list[int]) -> int:
    check = 1
    for value in values:
        check = (check & 0x1FFFFFF) << 5 ^ value ^ _STEPS[check >> 25]
    return check


def _expand(prefix: str) -> list[int]:
    return [ord(char) >> 5 for char in prefix] + [0] + [ord(char) & 31 for char in prefix]


def _regroup(data: list[int], source: int, target: int, *, pad: bool) -> list[int]:
    """Regroup bits of `source`-bit numbers into `target`-bit ones; ValueError on bad padding."""
    accumulator = bits = 0
    out = []
    for value in data:
        accumulator = accumulator << source | value
        bits += source
        while bits >= target:
            bits -= target
            out.append(accumulator >> bits & (1 << target) - 1)
    rest = accumulator & (1 << bits) - 1
    if pad and bits:
        out.append(rest << target - bits)
    elif not pad and (bits >= source or rest):
        raise ValueError("the padding is not zero")
    return out


def encode(prefix: str, payload: bytes) -> str:
    """Return the bech32m text of `payload` under a lower-case `prefix`."""
    data = _regroup(list(payload), 8, 5, pad=True)
    polymod = _polymod(_expand(prefix) + data + [0] * 6) ^ _CONSTANT
    checksum = [polymod >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(_CHARSET[value] for value in data + checksum)


def decode(text: str) -> tuple[str, bytes]:
    """Return (prefix, payload); ValueError says what is wrong with the text."""
    prefix, data = decode_words(text)
    return prefix, bytes(_regroup(data, 5, 8, pad=False))


def decode_words(text: str) -> tuple[str, list[int]]:
    """Return (prefix, 5-bit words without the checksum); ValueError says what is wrong."""
    if any(not 33 <= ord(char) <= 126 for char in text):
        raise ValueError("it has characters outside printable ASCII")
    if text.lower() != text and text.upper() != text:
        raise ValueError("it mixes upper and lower case")
    text = text.lower()
    split = text.rfind("1")
    if split < 1 or split + 7 > len(text) or len(text) > _MAX_LENGTH:
        raise ValueError("it is too short, too long, or has no separator")
    prefix, rest = text[:split], text[split + 1 :]
    if any(char not in _CHARSET for char in rest):
        raise ValueError("it has a character that is not in the alphabet")
    data = [_CHARSET.index(char) for char in rest]
    if _polymod(_expand(prefix) + data) != _CONSTANT:
        raise ValueError("the checksum does not match")
    return prefix, data[:-6]
