"""What a tenant is told of a lease."""

from typing import Any

from provider.leases.manifest import ManifestGroup
from provider.leases.model import Entry
from provider.runtime.port import Container


def status(entry: Entry, group: ManifestGroup | None, containers: tuple[Container, ...], public_host: str) -> dict[str, Any]:
    """The status of a lease as JSON; `public_host` is where its published ports are reached."""
    mine = [c for c in containers if c.generation == entry.wanted.generation]
    services: dict[str, Any] = {}
    for service in group.services if group else ():
        found = {c.replica: c for c in mine if c.service == service.name}
        replicas = [_replica(number, found.get(number)) for number in range(service.count)]
        states = {r["state"] for r in replicas}
        services[service.name] = {
            "state": "running" if states == {"running"} else "waiting" if "missing" in states else "exited",
            "replicas": replicas,
            "image": entry.images.get(service.name, service.image),
            "ports": [
                {
                    "container_port": port.container_port,
                    "protocol": port.protocol,
                    "host": public_host,
                    "host_port": port.host_port,
                    "replica": number,
                }
                for number, container in sorted(found.items())
                for port in container.ports
            ],
        }
    return {
        "lease": entry.lease,
        "phase": str(entry.phase),
        "generation": entry.wanted.generation,
        "state": str(entry.wanted.state),
        "error": entry.error,
        "failures": entry.failures,
        "services": services,
    }


def _replica(number: int, container: Container | None) -> dict[str, Any]:
    if container is None:
        return {"replica": number, "state": "missing", "exit_code": None, "oom_killed": False, "started_ms": 0}
    return {
        "replica": number,
        "state": container.state,
        "exit_code": container.exit_code,
        "oom_killed": container.oom_killed,
        "started_ms": container.started_ms,
    }
