"""Reading `services`: images, commands, ports, mounts, registry accounts."""

from typing import Any, Final

from tenant.sdl.document import Credentials, Expose, HttpOptions, Mount, Params, Service, To
from tenant.sdl.hosts import url_host_problem
from tenant.sdl.problem import Path
from tenant.sdl.tree import Node
from tenant.sdl.values import Field, Values


def _http_options(v: Values, node: Node, path: Path) -> HttpOptions:
    got = v.fields(node, path, _HTTP) or {}
    cases = got.pop("next_cases", None) or ()
    return HttpOptions(at=node.at, next_cases=cases, **got)


def _to(v: Values, node: Node, path: Path) -> To:
    got = v.fields(node, path, _TO) or {}
    return To(at=node.at, service=got.get("service", ""), global_=got.get("global", False), ip=got.get("ip", ""))


def _tos(v: Values, node: Node, path: Path) -> tuple[To, ...]:
    items = v.items(node, path, "a list", "write - global: true below to:") or []
    return tuple(_to(v, item, (*path, i)) for i, item in items)


def _accept(v: Values, node: Node, path: Path) -> tuple[str, ...] | None:
    hosts = v.texts(node, path)
    for index, host in enumerate(hosts or ()):
        said = url_host_problem(host)
        if said:
            v.report.error(
                "bad_hostname",
                (*path, index),
                node.at,
                f"{host[:60]!r} is no host name: {said}",
                found=host,
                allowed="a host name",
                fix="- app.example.com",
            )
    return hosts


def _expose(v: Values, node: Node, path: Path) -> Expose:
    got = v.fields(node, path, _EXPOSE) or {}
    return Expose(
        at=node.at,
        http_options=got.get("http_options") or HttpOptions(at=node.at),
        port=got.get("port", 0),
        as_=got.get("as", 0),
        proto=got.get("proto", ""),
        to=got.get("to", ()),
        accept=got.get("accept"),
    )


def _exposes(v: Values, node: Node, path: Path) -> tuple[Expose, ...]:
    items = v.items(node, path, "a list of ports", "write - port: 80 below expose:") or []
    return tuple(_expose(v, item, (*path, i)) for i, item in items)


def _mount(v: Values, node: Node, path: Path) -> Mount:
    got = v.fields(node, path, {"mount": Values.text, "readOnly": Values.flag}) or {}
    return Mount(at=node.at, mount=got.get("mount", ""), read_only=got.get("readOnly", False))


def _mounts(v: Values, node: Node, path: Path) -> dict[str, Mount]:
    return v.table(node, path, lambda n, p: _mount(v, n, p))


def _permissions(v: Values, node: Node, path: Path) -> dict[str, Any] | None:
    return v.fields(node, path, {"read": Values.texts})


def _params(v: Values, node: Node, path: Path) -> Params | None:
    got = v.fields(node, path, _PARAMS)
    if got is None:
        return None
    permissions = got.get("permissions")
    return Params(
        at=node.at,
        storage=got.get("storage", {}),
        permissions=None if permissions is None else permissions.get("read"),
        has_permissions=permissions is not None,
        tee=got.get("tee", ""),
    )


def _credentials(v: Values, node: Node, path: Path) -> Credentials | None:
    got = v.fields(node, path, _CREDENTIALS)
    return None if got is None else Credentials(at=node.at, **got)


def _dependency(v: Values, node: Node, path: Path) -> str:
    return str((v.fields(node, path, {"service": Values.text}) or {}).get("service", ""))


def _dependencies(v: Values, node: Node, path: Path) -> tuple[str, ...]:
    items = v.items(node, path, "a list", "write - service: NAME") or []
    return tuple(_dependency(v, item, (*path, i)) for i, item in items)


def service(v: Values, node: Node, path: Path) -> Service:
    """One service."""
    return Service(at=node.at, **(v.fields(node, path, _SERVICE) or {}))


_HTTP: Final[dict[str, Field]] = {
    "max_body_size": Values.uint32,
    "proxy_buffer_size": Values.uint32,
    "read_timeout": Values.uint32,
    "send_timeout": Values.uint32,
    "next_tries": Values.uint32,
    "next_timeout": Values.uint32,
    "next_cases": Values.texts,
}
# http_options below `to` are read by the reference, so that they must be well formed, and then unused.
_TO: Final[dict[str, Field]] = {
    "service": Values.text,
    "global": Values.flag,
    "ip": Values.text,
    "http_options": _http_options,
}
_EXPOSE: Final[dict[str, Field]] = {
    "port": Values.uint32,
    "as": Values.uint32,
    "proto": Values.text,
    "to": _tos,
    "accept": _accept,
    "http_options": _http_options,
}
_PARAMS: Final[dict[str, Field]] = {"storage": _mounts, "permissions": _permissions, "tee": Values.text}
_CREDENTIALS: Final[dict[str, Field]] = {
    "host": Values.text,
    "email": Values.text,
    "username": Values.text,
    "password": Values.text,
}
_SERVICE: Final[dict[str, Field]] = {
    "image": Values.text,
    "command": Values.texts,
    "args": Values.texts,
    "env": Values.texts,
    "expose": _exposes,
    "dependencies": _dependencies,
    "params": _params,
    "credentials": _credentials,
}
