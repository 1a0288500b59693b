"""The port on a Docker Engine, through docker-py. What is on the engine is found again by labels; nothing is remembered."""

import resource
import time
from typing import Any, Final

import docker.errors
import msgspec

from provider.runtime.commands import CommandStream, CommandTerminal, EventStream
from provider.runtime.engine import Engine, asking
from provider.runtime.images import Images
from provider.runtime.inspection import engine_info, to_container
from provider.runtime.logs import LogStream
from provider.runtime.naming import LABEL, bridge_name, container_name, label, network_name, owner_labels, volume_name
from provider.runtime.network import Firewall
from provider.runtime.port import (
    Chunk,
    Container,
    ContainerSpec,
    Credentials,
    EngineInfo,
    Image,
    LogLine,
    StartFailed,
    Stream,
    Terminal,
    Unknown,
)
from provider.runtime.profile import STANDARD, Limits, create_arguments

RULES_EVERY_S: Final = 10
"""Seconds after which the firewall's rules are asserted again while leases are on the host."""

REMOVAL_S: Final = 60
"""Seconds an engine may take over a removal that somebody else began."""


class DockerRuntime:
    """A Docker Engine on this machine, for one provider."""

    def __init__(
        self,
        base_url: str,
        provider_id: str,
        *,
        listen_ip: str = "127.0.0.1",
        limits: Limits = STANDARD,
        firewall: Firewall | None = None,
    ) -> None:
        self.provider_id = provider_id
        self.listen_ip = listen_ip
        self._engine = Engine(base_url)
        self._images = Images(self._engine)
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        within = limits.open_files if hard == resource.RLIM_INFINITY else min(limits.open_files, hard)
        self._limits = msgspec.structs.replace(limits, open_files=within)
        self._firewall = firewall or Firewall()
        self._rules_at = float("-inf")
        self._disk_quota: bool | None = None
        """Whether the engine bounds a container's own disk; None: not tried yet."""

    def __enter__(self) -> "DockerRuntime":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give connections back; containers stay."""
        self._engine.close()

    def info(self) -> EngineInfo:
        """Facts about the engine; its warnings say what this host cannot promise."""
        with asking():
            facts = self._engine.api.info()
            version = self._engine.api.version()
        self._assert_rules()
        return engine_info(facts, version, firewall_problem=self._firewall.problem)

    def _assert_rules(self) -> None:
        self._firewall.assert_rules()
        self._rules_at = time.monotonic()

    def ensure_image(self, reference: str, credentials: Credentials | None = None) -> Image:
        """Make the image ready; StartFailed("image_failed") says why not."""
        return self._images.ensure(reference, credentials)

    def ensure_network(self, lease: str) -> None:
        """The lease's own bridge and the rules in front of it; repeatable."""
        name, bridge = network_name(self.provider_id, lease), bridge_name(self.provider_id, lease)
        self._assert_rules()
        self._firewall.admit(bridge)
        with asking("start_failed"):
            try:
                self._engine.api.inspect_network(name)
            except docker.errors.NotFound:
                self._create_network(name, bridge, lease)

    def _create_network(self, name: str, bridge: str, lease: str) -> None:
        try:
            self._engine.api.create_network(
                name,
                driver="bridge",
                check_duplicate=True,
                enable_ipv6=False,
                labels=owner_labels(self.provider_id, lease),
                options={"com.docker.network.bridge.name": bridge, "com.docker.network.bridge.host_binding_ipv4": self.listen_ip},
            )
        except docker.errors.APIError as error:
            if error.status_code != 409:
                raise

    def start(self, spec: ContainerSpec) -> Container:
        """Create under its fixed name and start, as the port says."""
        name = container_name(self.provider_id, spec)
        found = self._inspect(name)
        if found is not None:
            if found["State"].get("Running"):
                return to_container(found)
            kept = found["State"].get("Status") == "exited" and label(found["Config"]["Labels"], "spec") == spec.spec_hash
            if not kept:
                self._remove_container(found["Id"])
                found = None
        identity = self._start_again(found["Id"]) if found is not None else self._create_and_start(spec)
        started = self._inspect(identity)
        if started is None:
            raise Unknown(f"{name} was started and is gone")
        return to_container(started)

    def _start_again(self, identity: str) -> str:
        with asking("start_failed"):
            self._engine.api.start(identity)
        return identity

    def _create_and_start(self, spec: ContainerSpec) -> str:
        """Make and start; where the host cannot keep a bound that is only a nicety, without it."""
        self._make_volumes(spec)
        while True:
            try:
                return self._attempt(spec)
            except StartFailed as refused:
                if self._has_disk_quota() and any(word in refused.detail for word in ("storage-opt", "quota")):
                    self._disk_quota = False
                elif self._limits.open_files and "rlimit" in refused.detail:
                    self._limits = msgspec.structs.replace(self._limits, open_files=0)
                else:
                    raise

    def _attempt(self, spec: ContainerSpec) -> str:
        quota = self._has_disk_quota()
        with asking("start_failed"):
            arguments = create_arguments(
                self.provider_id, spec, api_version=self._engine.api.api_version, limits=self._limits, disk_quota=quota
            )
            identity = str(self._engine.client().containers.create(**arguments).id)
        try:
            return self._start_again(identity)
        except StartFailed:
            # What never ran is no container of the lease: it would hold its name and its devices.
            self._remove_container(identity)
            raise

    def _has_disk_quota(self) -> bool:
        if self._disk_quota is None:
            with asking():
                facts = self._engine.api.info()
            status = dict(facts.get("DriverStatus") or [])
            self._disk_quota = facts.get("Driver") in ("btrfs", "zfs") or (
                facts.get("Driver") == "overlay2" and status.get("Backing Filesystem") == "xfs"
            )
        return self._disk_quota

    def _make_volumes(self, spec: ContainerSpec) -> None:
        with asking("start_failed"):
            for name, _ in spec.volumes.values():
                self._engine.api.create_volume(
                    volume_name(self.provider_id, spec.lease, name), labels=owner_labels(self.provider_id, spec.lease)
                )

    def _inspect(self, container: str) -> dict[str, Any] | None:
        with asking():
            try:
                found: dict[str, Any] = self._engine.api.inspect_container(container)
            except docker.errors.NotFound:
                return None
        return found

    def _filters(self, lease: str | None) -> dict[str, Any]:
        labels = [f"{LABEL}provider={self.provider_id}"] + ([f"{LABEL}lease={lease}"] if lease is not None else [])
        return {"label": labels}

    def containers(self, lease: str | None = None) -> tuple[Container, ...]:
        """All containers of this provider in every state, or those of one lease, by name."""
        with asking():
            listed = self._engine.api.containers(all=True, filters=self._filters(lease))
        found = [inspected for entry in listed if (inspected := self._inspect(entry["Id"])) is not None]
        if listed and time.monotonic() - self._rules_at > RULES_EVERY_S:
            self._assert_rules()
        return tuple(sorted((to_container(entry) for entry in found), key=lambda container: container.name))

    def stop(self, lease: str, *, grace_s: int = 10) -> None:
        """Ask the lease's containers to end, make them after `grace_s` seconds; they and their data stay."""
        with asking():
            for entry in self._engine.api.containers(filters=self._filters(lease)):
                try:
                    self._engine.api.stop(entry["Id"], timeout=grace_s)
                except docker.errors.NotFound:
                    continue

    def remove(self, lease: str, *, keep_generation: int | None = None) -> None:
        """Remove the lease's containers of other generations; without `keep_generation` all that it has."""
        with asking():
            for entry in self._engine.api.containers(all=True, filters=self._filters(lease)):
                if keep_generation is None or label(entry["Labels"], "generation") != str(keep_generation):
                    self._remove_container(entry["Id"])
            if keep_generation is not None:
                return
            for volume in self._engine.api.volumes(filters=self._filters(lease)).get("Volumes") or []:
                _gone(self._engine.api.remove_volume, volume["Name"])
            for network in self._engine.api.networks(filters=self._filters(lease)):
                _gone(self._engine.api.remove_network, network["Id"])
        self._firewall.forget(bridge_name(self.provider_id, lease))

    def _remove_container(self, identity: str) -> None:
        with asking():
            try:
                self._engine.api.remove_container(identity, v=True, force=True)
            except docker.errors.NotFound:
                return
            except docker.errors.APIError as error:
                if error.status_code != 409:  # 409: it is being removed already
                    raise
        deadline = time.monotonic() + REMOVAL_S
        while self._inspect(identity) is not None:
            if time.monotonic() > deadline:
                raise Unknown(f"container {identity[:12]} does not go away")
            time.sleep(0.05)

    def leases(self) -> frozenset[str]:
        """Leases of which a container, volume or network is on the host."""
        filters = self._filters(None)
        with asking():
            found = [entry["Labels"] for entry in self._engine.api.containers(all=True, filters=filters)]
            found += [entry["Labels"] for entry in self._engine.api.networks(filters=filters)]
            found += [entry["Labels"] for entry in self._engine.api.volumes(filters=filters).get("Volumes") or []]
        return frozenset(label(labels, "lease") for labels in found)

    def _is_running(self, container: str) -> bool:
        found = self._inspect(container)
        return found is not None and bool(found["State"].get("Running"))

    def logs(self, container: str, *, follow: bool, tail: int | None, since: str = "") -> Stream[LogLine]:
        """Lines of a container's output, as the port says."""
        return LogStream(self._engine, container, self._is_running, follow=follow, tail=tail, since=since)

    def execute(self, container: str, command: tuple[str, ...], stdin: bytes = b"") -> Stream[Chunk]:
        """Run a command inside."""
        return CommandStream(self._engine, container, command, stdin)

    def terminal(self, container: str, command: tuple[str, ...]) -> Terminal:
        """Run a command inside with a terminal."""
        return CommandTerminal(self._engine, container, command)

    def events(self) -> Stream[str]:
        """Lease ids whose containers changed; ends when the engine goes away."""
        return EventStream(self._engine, self.provider_id)


def _gone(remove: Any, identity: str) -> None:
    """Remove, and be content where it is gone."""
    try:
        remove(identity)
    except docker.errors.NotFound:
        return
