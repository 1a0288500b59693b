"""Names and labels of what a provider has on an engine: fixed, so that a daemon finds its own again after a restart."""

import hashlib
import re
from collections.abc import Mapping
from typing import Final

from provider.runtime.port import ContainerSpec

PREFIX: Final = "gpubid"
LABEL: Final = "io.gpubid."


def lease_tag(provider_id: str, lease: str) -> str:
    """Twelve hex digits that stand for a lease of this provider in names."""
    return hashlib.sha256(f"{provider_id}|{lease}".encode()).hexdigest()[:12]


def container_name(provider_id: str, spec: ContainerSpec) -> str:
    """`gpubid-<tag>-<service>-<replica>-g<generation>`."""
    service = re.sub(r"[^a-zA-Z0-9_.-]", "-", spec.service)[:63]
    return f"{PREFIX}-{lease_tag(provider_id, spec.lease)}-{service}-{spec.replica}-g{spec.generation}"


def network_name(provider_id: str, lease: str) -> str:
    """`gpubid-<tag>`."""
    return f"{PREFIX}-{lease_tag(provider_id, lease)}"


def bridge_name(provider_id: str, lease: str) -> str:
    """The network's interface on the host; the kernel allows 15 characters."""
    return f"gb-{lease_tag(provider_id, lease)}"


def volume_name(provider_id: str, lease: str, name: str) -> str:
    """`gpubid-<tag>-<name>`; the name is hashed where an engine would not take it."""
    plain = name if re.fullmatch(r"[a-zA-Z0-9_.-]{1,100}", name) else hashlib.sha256(name.encode()).hexdigest()[:16]
    return f"{network_name(provider_id, lease)}-{plain}"


def owner_labels(provider_id: str, lease: str) -> dict[str, str]:
    """Labels of everything that belongs to a lease."""
    return {f"{LABEL}provider": provider_id, f"{LABEL}lease": lease}


def container_labels(provider_id: str, spec: ContainerSpec) -> dict[str, str]:
    """Labels from which `Container` is read back without a journal."""
    return owner_labels(provider_id, spec.lease) | {
        f"{LABEL}generation": str(spec.generation),
        f"{LABEL}service": spec.service,
        f"{LABEL}replica": str(spec.replica),
        f"{LABEL}devices": ",".join(spec.devices),
        f"{LABEL}spec": spec.spec_hash,
        f"{LABEL}image": spec.image.digest,
    }


def label(labels: Mapping[str, str], name: str) -> str:
    """One of our labels, empty where it is not set."""
    return labels.get(f"{LABEL}{name}", "")
