"""The profile: what every container is made with, whatever is asked."""

import json
import string
from typing import Any

import msgspec
import pytest
from docker.models.containers import _create_container_args
from hypothesis import given
from hypothesis import strategies as st

from provider.runtime.port import ContainerSpec, Image, PortMap, StartFailed
from provider.runtime.profile import MAY_ADD, Limits, create_arguments

IMAGE = Image("sha256:" + "d" * 64, "sha256:" + "1" * 64, "registry.example/app:1")
WEB = ContainerSpec(
    lease="gpu1owner/1/1/1/gpu1provider", generation=2, service="web", replica=1, image=IMAGE, cpu_milli=1500, memory=2**30,
    disk=2**31, command=("/bin/app",), args=("--serve",),
    env={"MODE": "fast", "LD_PRELOAD": "/x.so", "NVIDIA_VISIBLE_DEVICES": "all"},
    ports=(PortMap(80, "tcp"), PortMap(53, "udp", "0.0.0.0", 40053)), tmpfs={"/tmp": 2**20}, volumes={"/data": ("data", False)},
    spec_hash="ab",
)  # fmt: skip


def body(spec: ContainerSpec, **options: Any) -> dict[str, Any]:
    """What goes to the engine, as JSON."""
    arguments = create_arguments("gpu1provider", spec, api_version="1.41", **options)
    made = _create_container_args({**arguments, "version": "1.41"})
    return dict(json.loads(json.dumps(made)))


def test_the_profile_is_what_it_is() -> None:
    """A container with a bit of everything is made with exactly these arguments."""
    made = body(WEB)
    host = made.pop("host_config")
    assert host == {
        "NetworkMode": "gpubid-4041855884fc", "RestartPolicy": {"Name": "no"}, "Memory": 2**30, "MemorySwap": 2**30,
        "ShmSize": 64 * 2**20, "NanoCpus": 1_500_000_000, "PidsLimit": 4096, "Init": True, "Runtime": "runc",
        "CapDrop": ["ALL"], "SecurityOpt": ["no-new-privileges"], "CgroupnsMode": "private", "IpcMode": "private",
        "Ulimits": [{"Name": "core", "Soft": 0, "Hard": 0}, {"Name": "nofile", "Soft": 65536, "Hard": 65536}],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "10485760", "max-file": "3"}},
        "PortBindings": {
            "80/tcp": [{"HostIp": "127.0.0.1", "HostPort": ""}], "53/udp": [{"HostIp": "0.0.0.0", "HostPort": "40053"}],
        },
        "Tmpfs": {"/tmp": "rw,nosuid,nodev,size=1048576"}, "Binds": ["gpubid-4041855884fc-data:/data:rw"],
    }  # fmt: skip
    assert made == {
        "image": IMAGE.id, "name": "gpubid-4041855884fc-web-1-g2", "hostname": "web-1", "detach": True, "use_config_proxy": False,
        "environment": {"MODE": "fast", "NVIDIA_VISIBLE_DEVICES": "void"}, "entrypoint": ["/bin/app"], "command": ["--serve"],
        "healthcheck": {"test": ["NONE"]}, "ports": [["53", "udp"], ["80", "tcp"]], "volumes": ["/data"],
        "networking_config": {"EndpointsConfig": {"gpubid-4041855884fc": {"Aliases": ["web", "web-1"]}}},
        "labels": {
            "io.gpubid.provider": "gpu1provider", "io.gpubid.lease": WEB.lease, "io.gpubid.generation": "2",
            "io.gpubid.service": "web", "io.gpubid.replica": "1", "io.gpubid.devices": "", "io.gpubid.spec": "ab",
            "io.gpubid.image": IMAGE.digest,
        },
    }  # fmt: skip


def with_devices(*devices: str, simulated: bool = False, **env: str) -> dict[str, Any]:
    """A container with devices."""
    return body(
        ContainerSpec(
            lease="l", generation=1, service="s", replica=0, image=IMAGE, cpu_milli=1000, memory=2**34, disk=0,
            devices=devices, simulated=simulated, env=env,
        )
    )  # fmt: skip


def test_devices_are_given_by_uuid() -> None:
    """Exactly the leased devices are asked for; the tenant's own selection counts for nothing."""
    made = with_devices("GPU-aaaa", "GPU-bbbb", NVIDIA_VISIBLE_DEVICES="all", nvidia_driver_capabilities="all")
    (request,) = made["host_config"]["DeviceRequests"]
    assert request["DeviceIDs"] == ["GPU-aaaa", "GPU-bbbb"]
    assert request["Count"] == 0
    assert request["Capabilities"] == [["gpu", "compute", "utility"]]
    assert made["environment"] == {"NVIDIA_VISIBLE_DEVICES": "GPU-aaaa,GPU-bbbb", "NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}
    assert made["host_config"]["ShmSize"] == 2**33


def test_simulated_devices_are_words_only() -> None:
    """A simulated device is a variable; nothing is asked of the engine."""
    made = with_devices("GPU-aaaa", simulated=True)
    assert "DeviceRequests" not in made["host_config"]
    assert made["environment"] == {"NVIDIA_VISIBLE_DEVICES": "void", "GPUBID_SIMULATED_DEVICES": "GPU-aaaa"}


def test_only_listed_capabilities_can_be_given_back() -> None:
    """An operator may give back what is on the list, and nothing else."""
    assert body(WEB, limits=Limits(capabilities=MAY_ADD))["host_config"]["CapAdd"] == list(MAY_ADD)
    with pytest.raises(AssertionError):
        Limits(capabilities=("SYS_ADMIN",))


REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("the host's folder as a volume's place", {"volumes": {"/data:/x": ("d", False)}}),
    ("a place above the root", {"volumes": {"/a/../proc": ("d", False)}}),
    ("the root itself", {"tmpfs": {"/": 1}}),
    ("the kernel's files", {"tmpfs": {"//proc/./sys": 1}}),
    ("devices", {"volumes": {"/dev": ("d", False)}}),
    ("a place that is not absolute", {"tmpfs": {"tmp": 1}}),
    ("options in a place", {"tmpfs": {"/tmp,exec": 1}}),
    ("every device", {"devices": ("all",)}),
    ("a device by number", {"devices": ("0",)}),
    ("two devices in one word", {"devices": ("GPU-a,GPU-b",)}),
    ("a device twice", {"devices": ("GPU-a", "GPU-a")}),
    ("no memory", {"memory": 1}),
    ("no processor", {"cpu_milli": 0}),
    ("a protocol that is none", {"ports": (PortMap(80, "sctp"),)}),
    ("a port that is none", {"ports": (PortMap(0, "tcp"),)}),
    ("a variable with a sign of equality", {"env": {"A=B": "c"}}),
    ("a zero byte", {"args": ("a\0b",)}),
    ("a host name with a dot", {"hostname": "a.b"}),
]


@pytest.mark.parametrize("changes", [row[1] for row in REFUSED], ids=[row[0] for row in REFUSED])
def test_what_nobody_may_have_is_refused(changes: dict[str, Any]) -> None:
    """Each of these is refused before an engine is asked."""
    with pytest.raises(StartFailed, match="not allowed"):
        body(msgspec.structs.replace(WEB, **changes))


HOSTILE = st.sampled_from(
    [
        "all",
        "--privileged",
        "/proc",
        "/sys",
        "/dev",
        "/",
        "..",
        "/var/run/docker.sock",
        "host",
        "x:y",
        "void",
        "a b",
        "\n",
        "",
        "é",
    ]
) | st.text(string.printable, max_size=20)

NUMBERS = st.integers(-1, 70_000)
PORTS = st.builds(PortMap, NUMBERS, st.sampled_from(["tcp", "udp", "x"]), st.just("127.0.0.1"), NUMBERS)

SPECS = st.builds(
    ContainerSpec,
    lease=HOSTILE, generation=st.integers(1, 9), service=HOSTILE, replica=st.integers(0, 9), image=st.just(IMAGE),
    cpu_milli=st.integers(-1, 10**6), memory=st.integers(-1, 2**40), disk=st.integers(0, 2**40),
    command=st.lists(HOSTILE, max_size=3).map(tuple), args=st.lists(HOSTILE, max_size=3).map(tuple),
    env=st.dictionaries(HOSTILE | st.sampled_from(["NVIDIA_VISIBLE_DEVICES", "LD_PRELOAD", "A"]), HOSTILE, max_size=4),
    ports=st.lists(PORTS, max_size=3).map(tuple),
    devices=st.lists(HOSTILE | st.sampled_from(["GPU-1", "MIG-2"]), max_size=3).map(tuple), simulated=st.booleans(),
    shm=st.integers(0, 2**50), tmpfs=st.dictionaries(HOSTILE, st.integers(0, 2**40), max_size=2),
    volumes=st.dictionaries(HOSTILE, st.tuples(HOSTILE, st.booleans()), max_size=2), hostname=HOSTILE, spec_hash=HOSTILE,
)  # fmt: skip

ALLOWED = {
    "NetworkMode", "RestartPolicy", "Memory", "MemorySwap", "ShmSize", "NanoCpus", "PidsLimit", "Init", "Runtime", "CapDrop",
    "SecurityOpt", "CgroupnsMode", "IpcMode", "Ulimits", "LogConfig", "PortBindings", "Tmpfs", "Binds", "DeviceRequests",
}  # fmt: skip


@given(SPECS)
def test_no_spec_escapes_the_profile(spec: ContainerSpec) -> None:
    """Whatever is asked, it is refused or it runs without a capability, bounded, and with its own devices and volumes alone."""
    try:
        made = body(spec)
    except StartFailed:
        return
    host = made["host_config"]
    assert set(host) <= ALLOWED
    assert (host["CapDrop"], host["SecurityOpt"]) == (["ALL"], ["no-new-privileges"])
    assert (host["Runtime"], host["IpcMode"], host["CgroupnsMode"]) == ("runc", "private", "private")
    assert host["NetworkMode"].startswith("gpubid-")
    assert host["Memory"] == host["MemorySwap"] > 0
    assert 0 < host["PidsLimit"] <= 4096
    assert host["NanoCpus"] > 0
    assert host["ShmSize"] <= host["Memory"]
    assert all(bind.startswith("gpubid-") and bind.count(":") == 2 for bind in host.get("Binds", []))
    for place in (*host.get("Tmpfs", {}), *(bind.split(":")[1] for bind in host.get("Binds", []))):
        assert place.startswith("/")
        assert ".." not in place.split("/")
        assert place.strip("/").split("/")[0] not in ("proc", "sys", "dev")
    asked = [request["DeviceIDs"] for request in host.get("DeviceRequests", [])]
    real = bool(spec.devices) and not spec.simulated
    assert asked == ([list(spec.devices)] if real else [])
    assert made["environment"]["NVIDIA_VISIBLE_DEVICES"] == (",".join(spec.devices) if real else "void")
    assert not [name for name in made["environment"] if name.startswith("LD_")]
