"""Each thing that is published and is not so is found, and the truth is left alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hwbench.consoles import BoardView
from hwbench.oracles import is_final, problems

MACS = {"n01": "24:0A:C4:00:00:01", "n02": "24:0A:C4:00:00:02", "n03": "24:0A:C4:00:00:03"}


def node(address: int, parent: int, **more: Any) -> dict[str, Any]:
    return {
        "addr": f"0x{address:04x}",
        "uuid": None,
        "provisioned_by": f"0x{parent:04x}",
        "listed": True,
        "proven": True,
        "device_address": None,
    } | more


def nodes_of(*nodes: dict[str, Any]) -> dict[str, Any]:
    return {
        "run_id": "r-1",
        "count": len(nodes),
        "addresses": [node["addr"] for node in nodes],
        "nodes": list(nodes),
    }


def view(address: int | None, *children: int, **more: Any) -> BoardView:
    had = set() if address is None else {address}
    has_app_key = address is not None
    made = BoardView(address=address, has_app_key=has_app_key, children=set(children), ever_had=had)
    for name, value in more.items():
        setattr(made, name, value)
    return made


class Session:
    """A run of three boards that is done; tests spoil it."""

    def __init__(self) -> None:
        self.run: dict[str, Any] = {
            "run_id": "r-1",
            "state": "done",
            "reason": None,
            "primary": "0x0002",
            "unicast_min": "0x0003",
            "unicast_max": "0x0102",
            "provisioned": 3,
            "proven": 3,
        }
        self.nodes = nodes_of(
            node(2, 1, device_address=MACS["n02"], listed=False), node(3, 2), node(4, 2)
        )
        self.views = {"n01": view(3), "n02": view(2, 3, 4), "n03": view(4)}

    def problems(self) -> list[str]:
        return problems(self.run, self.nodes, self.views, MACS)

    def is_partial(self) -> None:
        self.run |= {"state": "partial", "reason": "1 of 3 boards can not be proven"}


@pytest.fixture
def session() -> Session:
    return Session()


def test_the_truth_is_no_problem(session: Session) -> None:
    """What fits is left alone."""
    assert session.problems() == []


def test_an_invented_address(session: Session) -> None:
    """Published, but on no console."""
    session.views["n03"] = view(None)
    session.is_partial()
    assert session.problems()[0] == "0x0004 was published, but no board printed it"


def test_a_missed_address(session: Session) -> None:
    """On a console, but not published."""
    session.nodes = nodes_of(*session.nodes["nodes"][:2])
    assert session.problems() == ["n03 printed 0x0004, but it was not published"]


def test_an_address_twice(session: Session) -> None:
    """On two consoles, or twice in the list."""
    session.views["n03"] = view(3)
    session.nodes = nodes_of(*session.nodes["nodes"][:2], node(3, 2))
    found = session.problems()
    assert "two boards printed the same address" in found
    assert any(problem.startswith("an address is published twice") for problem in found)


def test_an_address_out_of_range(session: Session) -> None:
    """Beyond what the run was given, on either side."""
    session.run |= {"unicast_min": "0x0004", "unicast_max": "0x0010"}
    assert session.problems() == ["0x0002 is not in 0x0003..0x0010"]
    session.run |= {"unicast_min": "0x0003", "unicast_max": "0x0003"}
    assert session.problems() == ["0x0004 is not in 0x0002..0x0003"]


@pytest.mark.parametrize(
    ("proven", "claim"),
    [
        (True, "0x0004 is proven, but n03 never got an AppKey"),
        (False, "0x0004 is not proven, but n03 has an AppKey"),
    ],
)
def test_a_false_proof(session: Session, proven: bool, claim: str) -> None:
    """Proof goes with the AppKey, in both directions."""
    session.views["n03"].has_app_key = not proven
    session.nodes["nodes"][2]["proven"] = proven
    session.is_partial()
    assert claim in session.problems()


def test_a_board_without_app_key_makes_a_partial_run(session: Session) -> None:
    """Which is the truth then, and done would be a lie."""
    session.views["n03"].has_app_key = False
    session.nodes["nodes"][2]["proven"] = False
    assert session.problems() == ["the run is done, but n03 has no AppKey"]
    session.is_partial()
    assert session.problems() == []


def test_a_partial_run_without_a_cause(session: Session) -> None:
    """Every board is a node with AppKey: there is nothing to be partial about."""
    session.is_partial()
    assert session.problems() == [
        "the run is partial, but every board has an AppKey: 1 of 3 boards can not be proven"
    ]


@pytest.mark.parametrize("state", ["partial", "failed", "interrupted", "stopped"])
def test_an_end_without_a_reason(session: Session, state: str) -> None:
    """Whatever is not done says why."""
    session.views["n03"] = view(None)
    session.nodes = nodes_of(*session.nodes["nodes"][:2])
    session.run["state"] = state
    assert session.problems() == [f"the run is {state} without a reason"]


def test_a_lost_primary_may_leave_nodes_unknown(session: Session) -> None:
    """Then nobody can tell their addresses, and the run is partial."""
    session.views["n02"] = view(None, ever_had={2})
    session.nodes = nodes_of(session.nodes["nodes"][0] | {"proven": False})
    session.is_partial()
    assert session.problems() == []


def test_a_done_run_with_a_board_that_forgot(session: Session) -> None:
    """A board that lost its power is no node."""
    session.views["n03"] = view(None, ever_had={4})
    assert "0x0004 counts in a run that is done, but its board forgot it" in session.problems()


def test_a_wrong_device_address(session: Session) -> None:
    """A Bluetooth address belongs to the board that printed the unicast address."""
    session.nodes["nodes"][0]["device_address"] = MACS["n01"]
    assert session.problems() == ["0x0002 is 24:0A:C4:00:00:01, but n02 printed it"]


def test_a_wrong_parent(session: Session) -> None:
    """A provisioner has printed each of its children."""
    session.views["n02"].children.remove(4)
    assert session.problems() == ["0x0004 is said to be of 0x0002, but n02 printed no such child"]


def test_a_list_that_contradicts_itself(session: Session) -> None:
    """Another run's list, a wrong count, addresses that are not those of the nodes."""
    session.nodes |= {"run_id": "r-0", "count": 2, "addresses": ["0x0002", "0x0003", "0x0005"]}
    assert session.problems() == [
        "the address list is that of r-0, not of r-1",
        "count is 2 with 3 addresses",
        "addresses and nodes differ",
    ]


def test_nodes_without_a_range(session: Session) -> None:
    """Where addresses come from must be known."""
    session.run["unicast_min"] = None
    assert session.problems() == ["there are addresses, but no range was given"]


def test_which_list_is_the_last(session: Session) -> None:
    """A list from before the roll-call is not yet the one of the run's end."""
    assert is_final(session.nodes, session.run)
    early = copy.deepcopy(session.nodes)
    early["nodes"][1]["proven"] = False
    assert not is_final(early, session.run)
    assert not is_final(session.nodes | {"run_id": "r-0"}, session.run)
    assert not is_final({}, session.run)
    assert is_final(early, session.run | {"state": "interrupted"})
