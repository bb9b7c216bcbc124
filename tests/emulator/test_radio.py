"""The radio: what collides, what is strong enough not to, and who does not hear while it sends."""

from __future__ import annotations

import hashlib
from itertools import combinations
from math import exp
from random import Random

import pytest

from fastprovd.emulator import firmware
from fastprovd.emulator.radio import CAPTURE_DB, EVENT_S, MAX_PATH_LOSS_DB, Radio

FAST = firmware.FAST_INTERVAL_S
SLOW = firmware.SLOW_INTERVAL_S


class Placed(Radio):
    """A radio with the path losses of a test; of other pairs 15 dB."""

    def __init__(self, losses: dict[tuple[str, str], float]) -> None:
        super().__init__(lambda name, count: b"", Random(1))
        self._losses = losses

    def path_loss_db(self, one: str, other: str) -> float:
        return self._losses.get((one, other), self._losses.get((other, one), 15.0))


def radio(seed: int, boards: int) -> Radio:
    made = Radio(lambda name, n: hashlib.sha256(f"{seed}/{name}".encode()).digest()[:n], Random(1))
    for number in range(boards):
        made.add_board(f"board {number}")
    return made


def placed(boards: int, losses: dict[tuple[str, str], float]) -> Placed:
    made = Placed(losses)
    for number in range(boards):
        made.add_board(f"{number}")
    return made


def share(made: Radio, sender: int, receiver: int, draws: int = 4000) -> float:
    """Return how many of so many events get through."""
    return sum(bool(made.survivors(sender, 1 << receiver)) for _ in range(draws)) / draws


def test_nobody_else_sends_and_everything_gets_through() -> None:
    """Without another sender nothing collides, whatever the path loss."""
    made = radio(1, 10)
    assert made.survivors(0, 0b1111111110) == 0b1111111110
    assert made.clear(0, "hci0") == 1.0


def test_the_more_send_the_less_gets_through() -> None:
    """An event is lost if another begins up to its own length before or after it (OB 19)."""
    made = placed(52, {})
    for board in range(2, 52):
        made.set_interval(board, FAST)
    offered = 50 * EVENT_S / 0.025
    assert offered == pytest.approx(0.75, abs=0.01)
    assert share(made, 0, 1) == pytest.approx(exp(-2 * offered), abs=0.02)
    assert made.clear(0, "hci0") == pytest.approx(exp(-2 * offered))


def test_slow_advertising_hardly_disturbs() -> None:
    """At 500 ms a board counts for a twentieth, and for nothing when it falls silent."""
    made = placed(52, {})
    for board in range(2, 52):
        made.set_interval(board, SLOW)
    assert made.clear(0, "hci0") == pytest.approx(exp(-2 * 50 * EVENT_S / 0.505))
    for board in range(2, 52):
        made.set_interval(board, None)
    assert made.clear(0, "hci0") == 1.0


@pytest.mark.parametrize(("margin_db", "is_captured"), [(CAPTURE_DB, True), (7.9, False)])
def test_the_stronger_one_is_captured(margin_db: float, is_captured: bool) -> None:
    """8 dB above the other a transmission is heard, with less both are lost."""
    made = placed(3, {("0", "1"): 10.0, ("2", "1"): 10.0 + margin_db})
    made.set_interval(0, FAST)
    made.set_interval(2, FAST)
    hears = exp(-2 * EVENT_S / 0.025)
    assert share(made, 0, 1) == pytest.approx(1.0 if is_captured else hears, abs=0.01)
    assert (share(made, 0, 1) == 1.0) is is_captured
    assert share(made, 2, 1) == pytest.approx(hears, abs=0.01)


def test_who_sends_does_not_hear() -> None:
    """A board that advertises at 20 ms misses six of a hundred events; itself it does not mind."""
    made = placed(3, {})
    made.set_interval(1, FAST)
    assert share(made, 0, 1) == pytest.approx(exp(-4 * EVENT_S / 0.025), abs=0.01)
    made.set_interval(0, FAST)
    assert share(made, 0, 2) == pytest.approx(exp(-2 * EVENT_S / 0.025), abs=0.01)
    made.set_interval(1, SLOW)
    assert share(made, 0, 1) > 0.99


def test_path_loss_is_drawn_once_per_pair() -> None:
    """0 to 30 dB, the same both ways and each time, another with another seed."""
    made = radio(1, 0)
    names = [f"board {number}" for number in range(40)]
    pairs = list(combinations(names, 2))
    losses = [made.path_loss_db(one, other) for one, other in pairs]
    assert losses == [made.path_loss_db(other, one) for one, other in pairs]
    assert losses != [radio(2, 0).path_loss_db(one, other) for one, other in pairs]
    assert 0.0 <= min(losses) < 1.0 < 29.0 < max(losses) < MAX_PATH_LOSS_DB
    assert sum(losses) / len(losses) == pytest.approx(15.0, abs=1.0)


def test_of_several_events_one_is_enough() -> None:
    """An adapter that is told of four events at once has four chances."""
    made = placed(101, {})
    for board in range(1, 101):
        made.set_interval(board, FAST)
    lost = 1 - made.clear(0, "hci0")
    heard = sum(made.hears(0, "hci0", 4) for _ in range(4000)) / 4000
    assert heard == pytest.approx(1 - lost**4, abs=0.02)


def test_a_board_that_is_placed_later_counts() -> None:
    """Whom it disturbs is found out anew."""
    made = placed(2, {})
    assert made.clear(0, "hci0") == 1.0
    made.add_board("2")
    made.set_interval(2, FAST)
    assert made.clear(0, "hci0") < 1.0
    assert share(made, 0, 1) < 1.0
