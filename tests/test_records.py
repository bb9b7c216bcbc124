"""What the records say of themselves."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from fastprovd.records import Knowledge, Node, Run, RunState, distinct_boards, newest_list


@pytest.mark.parametrize(
    ("listed", "proven", "knowledge"),
    [
        (False, False, Knowledge.HEARD),
        (True, False, Knowledge.LISTED),
        (False, True, Knowledge.PROVEN),
        (True, True, Knowledge.PROVEN),
    ],
)
def test_an_answer_is_the_strongest(listed: bool, proven: bool, knowledge: Knowledge) -> None:
    """Who answered is proven, whoever else named it; who is silent is listed, or only heard."""
    assert Node(0x0005, "r", listed=listed, proven=proven).knowledge is knowledge


def test_a_board_with_two_addresses_is_one() -> None:
    """Device UUID and device address tell boards apart; without them each address is a board."""
    board = Node(0x0005, "r", device_uuid=b"\xdd" * 16, device_address="AA")
    again = Node(0x0009, "r", device_uuid=b"\xdd" * 16, device_address="AA")
    clone = Node(0x000A, "r", device_uuid=b"\xdd" * 16, device_address="BB")
    assert distinct_boards([board, again, Node(0x0006, "r"), Node(0x0007, "r")]) == 3
    assert distinct_boards([board, again, clone]) == 2
    assert distinct_boards([]) == 0


def test_a_run_without_nodes_has_no_list() -> None:
    """The address list is of the newest run that has any."""
    newest, older = (Run(run_id, RunState.FAILED, datetime.now(UTC)) for run_id in ("r-2", "r-1"))
    node = Node(0x0005, "r-1")
    assert newest_list([newest, older], [node]) == (older, [node])
    assert newest_list([newest, older], []) == (None, [])
    assert newest_list([], [node]) == (None, [])
