"""What a deployment may be changed to while its leases go on: another manifest in the very same groups."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

from marketplace.protocol.messages import UpdateDeployment
from marketplace.protocol.resources import Group, ResourceUnit
from tenant.deploy.failure import DeployFailed
from tenant.deploy.kept import Kept

if TYPE_CHECKING:
    from tenant.sdl import Sdl

Json = dict[str, Any]


class Revision(msgspec.Struct, frozen=True):
    """Another manifest for a deployment, and the message that puts its hash on the ledger; None where it stands there already."""

    kept: Kept
    message: UpdateDeployment | None


def make_revision(found: Mapping[str, Any], sdl: "Sdl", *, ignore_auditors: bool = False) -> Revision:
    """The change of the deployment `found` (a node's answer) to a file; DeployFailed where its groups would have to change."""
    dseq = int(found["dseq"])
    if found["state"] != "active":
        raise DeployFailed(f"deployment {dseq} is closed: {found['reason']}", fix="deploy the file anew", exit_code=5)
    ordered = {order["gseq"]: msgspec.convert(order["group"], Group) for order in found["orders"]}
    changes = differences([ordered[gseq] for gseq in sorted(ordered)], sdl.market_groups(ignore_auditors=ignore_auditors))
    if sdl.denomination != found["denomination"]:
        changes.append(f"it pays in {found['denomination']}, the file in {sdl.denomination}")
    if changes:
        fix = f"gpubid deploy makes a new deployment of the file, then gpubid lease close {dseq} ends this one"
        raise DeployFailed(f"deployment {dseq} cannot be changed to that: {'; '.join(changes)}", fix=fix, exit_code=5)
    message = None
    if sdl.hash != found["hash"]:
        message = UpdateDeployment(dseq=dseq, hash=sdl.hash, version=int(found["version"]))
    return Revision(Kept(owner=str(found["owner"]), dseq=dseq, hash=sdl.hash, manifest=sdl.manifest), message)


def differences(ordered: Sequence[Group], asked: Sequence[Group]) -> list[str]:
    """What the groups of a file ask that is not what was ordered, in words; ports may be fewer than were ordered."""
    old, new = {group.name: group for group in ordered}, {group.name: group for group in asked}
    out = [f"group {name} was ordered and is not in the file" for name in old if name not in new]
    out += [f"group {name} was not ordered" for name in new if name not in old]
    for name in old:
        if name in new:
            out += [f"group {name}: {text}" for text in _differences(old[name], new[name])]
    return out


def _differences(old: Group, new: Group) -> list[str]:
    out = []
    had, has = _shapes(old), _shapes(new)
    for shape in [*had, *(shape for shape in has if shape not in had)]:
        if had[shape] != has[shape]:
            out.append(f"{had[shape]} × ({shape}) ordered, {has[shape]} in the file")
    ports, wanted = (sum(unit.ports * unit.count for unit in group.resources) for group in (old, new))
    if not out and wanted > ports:
        out.append(f"{ports} published ports ordered, {wanted} in the file")
    for what, before, after in (
        ("time needed in ms", old.duration_ms, new.duration_ms),
        ("shortest duration accepted in ms", old.most_bound_ms, new.most_bound_ms),
        ("placement attributes", old.attributes, new.attributes),
        ("auditors", msgspec.to_builtins(old.signed_by), msgspec.to_builtins(new.signed_by)),
    ):
        if before != after:
            out.append(f"{what} {before or 'none'} ordered, {after or 'none'} in the file")
    # The price follows the counts: where they differ that is said already.
    if old.limit_per_hour != new.limit_per_hour and had == has:
        out.append(f"limit {old.limit_per_hour} micro-credits/h ordered, {new.limit_per_hour} in the file")
    return out


def _shapes(group: Group) -> Counter[str]:
    """How many replicas of each shape a group has; ports are no part of it."""
    found: Counter[str] = Counter()
    for unit in group.resources:
        found[_words(unit)] += unit.count
    return found


def _words(unit: ResourceUnit) -> str:
    parts = [f"cpu {unit.cpu_milli}m", f"memory {_size(unit.memory)}"]
    if unit.gpu:
        kinds = sorted("/".join(filter(None, (m.vendor, m.model, f"{m.ram_mib}Mi" if m.ram_mib else "", m.interface)))
                       for m in unit.gpu.models)  # fmt: skip
        parts.append(f"{unit.gpu.count} gpu {' or '.join(kinds)}")
    parts += sorted(f"{volume.storage_class} {_size(volume.size)}" for volume in unit.volumes)
    return ", ".join(parts)


def _size(number: int) -> str:
    return f"{number // 2**20}Mi" if number % 2**20 == 0 else str(number)
