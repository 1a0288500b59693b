"""Host names and names: the rules of Kubernetes and of Go's net/url that the reference applies."""

import re
from typing import Final

_LABEL: Final = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_SERVICE: Final = re.compile(r"[a-z](?:[-a-z0-9]*[a-z0-9])?")
_ENV: Final = re.compile(r"[-._a-zA-Z][-._a-zA-Z0-9]*")
_ENDPOINT: Final = re.compile(r"[a-z]+[-_a-z0-9]+")
_HOST_FREE: Final = frozenset("-_.~!$&'()*+,;=:[]<>\"%")
_USER_FREE: Final = frozenset("-._:~!$&'()*+,;=%@")
_PORT: Final = re.compile(r"(?::[0-9]*)?")
_ESCAPE: Final = re.compile(r"%(?![0-9a-fA-F]{2})")
_LOW_ESCAPE: Final = re.compile(r"%(?!25)[0-7][0-9a-fA-F]")


def is_subdomain(name: str) -> bool:
    """True for a DNS-1123 subdomain of at most 253 letters."""
    return len(name) <= 253 and _SUBDOMAIN.fullmatch(name) is not None


def is_service_name(name: str) -> bool:
    """True for a name that a service may have in a manifest."""
    return _SERVICE.fullmatch(name) is not None


def is_env_name(name: str) -> bool:
    """True for the name of an environment variable in Kubernetes."""
    return _ENV.fullmatch(name) is not None and name != "." and not name.startswith("..")


def is_endpoint_name(name: str) -> bool:
    """True for the name of an IP endpoint."""
    return _ENDPOINT.fullmatch(name) is not None


def url_host_problem(text: str) -> str:
    """What keeps `http://TEXT` from being a request URI for Go's net/url; nothing where it is one."""
    if any(c < " " or c == "\x7f" for c in text):
        return "it has a control character"
    rest = text.split("?", 1)[0]
    authority, slash, path = rest.partition("/")
    user, at, host = authority.rpartition("@")
    if at and not all(c.isascii() and (c.isalnum() or c in _USER_FREE) for c in user):
        return "its user part has a letter that does not belong there"
    if _ESCAPE.search(path if slash else "") or _ESCAPE.search(user) or _ESCAPE.search(host):
        return "it has a % without two hexadecimal digits"
    if host.startswith("["):
        inside, bracket, port = host.rpartition("]")
        if not bracket:
            return "it has no ]"
    else:
        inside, colon, digits = host.rpartition(":")
        port = colon + digits if colon else ""
    if not _PORT.fullmatch(port):
        return "its port is no number"
    zone = host.startswith("[") and "%25" in inside
    if not zone and _LOW_ESCAPE.search(host):
        return "it has an escape that a host name may not have"
    if any(c.isascii() and not c.isalnum() and c not in _HOST_FREE for c in host):
        return "it has a letter that a host name may not have"
    return ""
