"""How many acknowledgments strangers may cost."""

from __future__ import annotations

from fastprovd.mesh.ack_budget import BURST, REFILL_S, AcknowledgmentBudget


def test_a_burst_is_granted_and_no_more() -> None:
    """At one moment there are as many as a badly received list may need, twice over."""
    budget = AcknowledgmentBudget()
    assert sum(budget.take(0.0) for _ in range(2 * BURST)) == BURST


def test_it_refills_with_time_and_not_beyond_the_burst() -> None:
    """One each few seconds; a long pause saves up no more than the burst."""
    budget = AcknowledgmentBudget()
    while budget.take(0.0):
        pass
    assert not budget.take(REFILL_S * 0.5)
    assert budget.take(REFILL_S * 1.1)
    assert sum(budget.take(1e9) for _ in range(2 * BURST)) == BURST


def test_what_is_given_back_may_be_spent_again() -> None:
    """Not beyond the burst either."""
    budget = AcknowledgmentBudget()
    while budget.take(0.0):
        pass
    budget.give_back(3)
    assert sum(budget.take(0.0) for _ in range(10)) == 3
    budget.give_back(10 * BURST)
    assert sum(budget.take(0.0) for _ in range(2 * BURST)) == BURST
