"""Every move of a record's state is in one table; others are bugs."""

import ast
from enum import StrEnum
from pathlib import Path

import pytest

from marketplace.market.lifecycle import TRANSITIONS, advance
from marketplace.protocol.records import (
    Deployment,
    DeploymentState,
    DeviceClaim,
    DeviceState,
    LeaseState,
    OrderState,
)

MARKET = Path(__file__).resolve().parents[3] / "marketplace" / "market"

MOVES = {
    "OrderState": "open>matched open>closed matched>closed",
    "LeaseState": (
        "matched>active matched>paused matched>closed active>down active>paused active>closed "
        "down>active down>paused down>closed paused>matched paused>closed"
    ),
    "DeploymentState": "active>closed",
    "DeviceState": "free>leased leased>free leased>cordoned cordoned>free",
}


def test_the_table_is_the_published_one() -> None:
    """The moves are these and no others; closed is the end of everything."""
    written = {
        kind.__name__: {f"{state}>{to}" for state, targets in table.items() for to in targets}
        for kind, table in TRANSITIONS.items()
    }
    assert written == {name: set(moves.split()) for name, moves in MOVES.items()}
    assert all(set(table) == set(kind) for kind, table in TRANSITIONS.items())


def claim(state: DeviceState) -> DeviceClaim:
    """A device in some state."""
    return DeviceClaim(host="h1", id="0" * 64, lease="", provider="p", state=state)


@pytest.mark.parametrize("state", list(DeviceState))
@pytest.mark.parametrize("to", list(DeviceState))
def test_a_forbidden_move_stops_the_machine(state: DeviceState, to: DeviceState) -> None:
    """`advance` makes the moves of the table, with other fields beside, and fails on any other."""
    if to in TRANSITIONS[DeviceState][state]:
        assert advance(claim(state), to, lease="x") == DeviceClaim(host="h1", id="0" * 64, lease="x", provider="p", state=to)
    else:
        with pytest.raises(AssertionError, match=f"DeviceClaim {state} -> {to}"):
            advance(claim(state), to)


def test_equal_words_of_different_things_are_not_confused() -> None:
    """A deployment does not move to a lease's `closed`, though the text is the same."""
    deployment = Deployment(
        closed_ms=0,
        created_ms=0,
        denomination="ucredit",
        dseq=1,
        groups=1,
        hash="",
        owner="",
        reason="",
        spec_hash="",
        state=DeploymentState.ACTIVE,
        version=1,
    )
    other: StrEnum = LeaseState.CLOSED
    with pytest.raises(AssertionError, match="different things"):
        advance(deployment, other)
    assert advance(deployment, DeploymentState.CLOSED).state is DeploymentState.CLOSED
    assert other == OrderState.CLOSED


def test_states_change_by_advance_alone() -> None:
    """No module of the market writes a `state` in any other way: records are born in their first state."""
    born = {"MATCHED", "OPEN", "ACTIVE", "FREE"}
    for path in sorted(MARKET.glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call):
                continue
            name = ast.unparse(node.func)
            for keyword in node.keywords:
                if keyword.arg == "state" and name not in ("LeaseChanged", "msgspec.structs.replace"):
                    assert ast.unparse(keyword.value).rsplit(".", 1)[-1] in born, f"{path.name}:{node.lineno}"
                if keyword.arg == "state" and name == "msgspec.structs.replace":
                    assert path.name == "lifecycle.py", f"{path.name}:{node.lineno}"
