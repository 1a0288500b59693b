"""States of the NVML stub: machines as they are met."""

State = dict[str, object]


def _card(index: int, name: str, pci: int, memory: int, **more: object) -> State:
    state: State = {
        "name": name, "uuid": f"GPU-{index:08x}-0000-4000-8000-{pci:012x}", "serial": f"16{index:011d}", "pci": hex(pci),
        "bus": f"00000000:{0x10 + index:02X}:00.0", "memory": memory, "architecture": 9, "brand": 14, "bus_width": 5120,
        "compute_mode": 0, "cores": 16896, "display_active": 0, "pcie_generation": 5, "pcie_width": 16, "pcie_width_max": 16,
        "persistence": 1, "power_limit": 700000, "temperature": 35, "slowdown": 90, "vbios": "96.00.30.00.01",
        "virtualization": 0, "capability": "9,0", "numa_node": 0, "clock": 1980,
    }  # fmt: skip
    return {f"dev{index}.{key}": value for key, value in (state | more).items()}


def _host(*cards: State) -> State:
    state: State = {"driver": "570.86.15", "nvml": "12.570.86.15", "cuda": 12080, "count": len(cards)}
    for card in cards:
        state |= card
    return state


def _datacentre(index: int, name: str, pci: int, memory: int, **more: object) -> State:
    healthy = {"ecc": "1,1", "uncorrected": 0, "rows": "0,0,0,0", "mig": "0,0", "field230": 0}
    return _card(index, name, pci, memory, **(healthy | more))


def hgx() -> State:
    """Eight H100 on NVSwitch."""
    links = {f"link{link}.{key}": value for link in range(18) for key, value in (("state", 1), ("type", 2))}
    return _host(*(_datacentre(i, "NVIDIA H100 80GB HBM3", 0x2330, 81559, fabric="3,0", **links) for i in range(8)))


def gaming() -> State:
    """Two 3090 with a bridge, a 4090 and a laptop's 4090."""
    bridge = [
        {f"link{n}.state": 1, f"link{n}.type": 0, f"link{n}.remote": bus}
        for n, bus in ((0, "00000000:11:00.0"), (0, "00000000:10:00.0"))
    ]
    return _host(
        _card(0, "NVIDIA GeForce RTX 3090", 0x2204, 24576, **bridge[0]),
        _card(1, "NVIDIA GeForce RTX 3090", 0x2204, 24576, **bridge[1]),
        _card(2, "NVIDIA GeForce RTX 4090", 0x2684, 24564, display_active=1),
        _card(3, "NVIDIA GeForce RTX 4090 Laptop GPU", 0x2757, 16376),
    )


def sliced() -> State:
    """An A100 in seven slices beside a whole one."""
    parent = _datacentre(0, "NVIDIA A100-SXM4-40GB", 0x20B0, 40960, mig="1,1", mig_most=7)
    for n in range(7):
        parent |= {
            f"dev0.mig{n}.uuid": f"MIG-{n:08x}-0000-5000-8000-000000000000", f"dev0.mig{n}.memory": 4864,
            f"dev0.mig{n}.name": "NVIDIA A100-SXM4-40GB MIG 1g.5gb", f"dev0.mig{n}.gi": n + 7, f"dev0.mig{n}.ci": 0,
        }  # fmt: skip
    return _host(parent, _datacentre(1, "NVIDIA A100-SXM4-40GB", 0x20B0, 40960))


def unified() -> State:
    """A GB10, whose memory is the machine's."""
    card = _card(0, "NVIDIA GB10", 0x2E12, 0)
    del card["dev0.memory"]
    return _host(card)


def one_lost() -> State:
    """Four cards, the third fell off the bus."""
    cards = [_datacentre(i, "NVIDIA L40S", 0x26B9, 46068) for i in range(4)]
    return _host(*cards) | {"dev2.lost": 1}


def no_handle() -> State:
    """Two cards, one of which not even gives a handle."""
    return _host(*(_datacentre(i, "NVIDIA L4", 0x27B8, 23034) for i in range(2))) | {"dev0.handle": 15}


AILMENTS: list[tuple[str, State, str]] = [
    ("uncorrected memory errors", {"uncorrected": 3}, "uncorrected"),
    ("a row that cannot be remapped", {"rows": "0,1,0,1"}, "broken"),
    ("rows that wait", {"rows": "0,1,1,0"}, "wait to be remapped"),
    ("MIG half switched", {"mig": "0,1"}, "being switched"),
    ("a recovery action", {"field230": 2}, "reboot"),
    ("a fabric that is not ready", {"fabric": "2,0"}, "fabric"),
    ("a share in a guest", {"virtualization": 2}, "vGPU"),
    ("a share by name", {"name": "GRID A100-10C", "pci": hex(0x20B0)}, "vGPU"),
    ("another card's firmware", {"name": "NVIDIA GeForce RTX 3090"}, "firmware"),
    ("memory no such card has", {"memory": 24576}, "firmware"),
    ("memory that cannot be read", {"memory": "!999"}, "memory cannot be read"),
    ("heat", {"temperature": 95}, "hot"),
    ("compute prohibited", {"compute_mode": 2}, "prohibited"),
    ("pages that wait", {"retired_pending": 1}, "retired"),
]


def ailing(fault: State) -> State:
    """A healthy A100 beside one with a fault."""
    cards = [_datacentre(i, "NVIDIA A100-SXM4-40GB", 0x20B0, 40960) for i in range(2)]
    return _host(*cards) | {f"dev1.{key}": value for key, value in fault.items()}


def text(state: State) -> str:
    """The state file."""
    return "".join(f"{key}={value}\n" for key, value in state.items())
