"""What an SDL says, as typed frozen objects. Sizes are bytes, processors thousandths of one, times milliseconds."""

from collections.abc import Mapping
from decimal import Decimal

import msgspec

from tenant.sdl.problem import At


class Part(msgspec.Struct, frozen=True):
    """Root of the parts of a document; `at` is where each begins in the file."""

    at: At


class HttpOptions(Part, frozen=True):
    """How the ingress treats requests; zero is the default. Sizes in bytes, timeouts in milliseconds."""

    max_body_size: int = 0
    proxy_buffer_size: int = 0
    read_timeout: int = 0
    send_timeout: int = 0
    next_tries: int = 0
    next_timeout: int = 0
    next_cases: tuple[str, ...] = ()


class To(Part, frozen=True):
    """Who reaches an exposed port: a service of the deployment, or the world, perhaps at an address of its own."""

    service: str = ""
    global_: bool = False
    ip: str = ""


class Expose(Part, frozen=True):
    """A port of a service. `as_` 0 means: the same number outside."""

    http_options: HttpOptions
    port: int = 0
    as_: int = 0
    proto: str = ""
    to: tuple[To, ...] = ()
    accept: tuple[str, ...] | None = None


class Mount(Part, frozen=True):
    """Where a service sees a volume."""

    mount: str = ""
    read_only: bool = False


class Params(Part, frozen=True):
    """Mounts by volume, what the service may read of its own deployment, and confidential computing."""

    storage: Mapping[str, Mount] = {}
    permissions: tuple[str, ...] | None = None
    has_permissions: bool = False
    tee: str = ""


class Credentials(Part, frozen=True):
    """The account at the image's registry, as written."""

    host: str = ""
    email: str = ""
    username: str = ""
    password: str = ""


class Service(Part, frozen=True):
    """A container image and how it runs. None where a list is absent: the manifest tells absent from empty."""

    image: str = ""
    command: tuple[str, ...] | None = None
    args: tuple[str, ...] | None = None
    env: tuple[str, ...] | None = None
    expose: tuple[Expose, ...] = ()
    dependencies: tuple[str, ...] = ()
    params: Params | None = None
    credentials: Credentials | None = None


class Cpu(Part, frozen=True):
    """Processors in thousandths; attributes as (key, value)."""

    milli: int = 0
    attributes: tuple[tuple[str, str], ...] = ()


class Memory(Part, frozen=True):
    """Memory in bytes."""

    size: int = 0


class GpuChoice(msgspec.Struct, frozen=True):
    """One acceptable kind of GPU. `ram` in bytes, 0 any; `model` `*` any."""

    vendor: str
    model: str
    ram: int = 0
    has_ram: bool = False
    interface: str = ""

    @property
    def key(self) -> str:
        """The attribute that asks for it, as the manifest writes it."""
        out = f"vendor/{self.vendor}/model/{self.model}"
        if self.has_ram:
            out += f"/ram/{self.ram // 2**30}Gi"
        return out + (f"/interface/{self.interface}" if self.interface else "")


class Gpu(Part, frozen=True):
    """GPUs: how many, and the kinds that will do, sorted by key."""

    units: int = 0
    choices: tuple[GpuChoice, ...] = ()


class Volume(Part, frozen=True):
    """A volume, in bytes; attributes as sorted (key, value)."""

    name: str = ""
    size: int = 0
    attributes: tuple[tuple[str, str], ...] = ()

    def attribute(self, key: str) -> str:
        """The value of an attribute, or nothing."""
        return next((value for name, value in self.attributes if name == key), "")

    @property
    def persistent(self) -> bool:
        """True where it outlives the container."""
        return self.attribute("persistent") == "true"


class Compute(Part, frozen=True):
    """A compute profile: what one replica needs. None where a part is absent."""

    cpu: Cpu | None = None
    memory: Memory | None = None
    gpu: Gpu | None = None
    storage: tuple[Volume, ...] = ()


class Price(Part, frozen=True):
    """The most that one replica may cost a block, in micro-units of the denomination."""

    amount: Decimal
    denom: str


class Placement(Part, frozen=True):
    """Where a group may run: attributes as sorted (key, value), auditors, price by compute profile (None: unreadable).

    `needs_ms` and `accepts_ms` are this market's own: how long it must be allowed to run, and the longest shortest duration
    that it accepts (None: it does not say).
    """

    attributes: tuple[tuple[str, str], ...] = ()
    all_of: tuple[str, ...] | None = None
    any_of: tuple[str, ...] | None = None
    pricing: Mapping[str, Price | None] = {}
    needs_ms: int = 0
    accepts_ms: int | None = None


class Run(Part, frozen=True):
    """A service at a placement: its compute profile and how many replicas."""

    profile: str = ""
    count: int = 0


class Endpoint(Part, frozen=True):
    """An address of its own, leased for the deployment."""

    kind: str = ""


class Document(Part, frozen=True):
    """A whole SDL as it is written."""

    version: str
    services: Mapping[str, Service]
    compute: Mapping[str, Compute]
    placement: Mapping[str, Placement]
    deployment: Mapping[str, Mapping[str, Run]]
    endpoints: Mapping[str, Endpoint]
    include: tuple[str, ...] = ()
    reclamation_ns: int | None = None
