"""What waits in memory while the disk takes nothing."""

from __future__ import annotations

from fastprovd.publish import spare
from fastprovd.publish.messages import Message
from fastprovd.publish.spare import Spare


def test_the_bounds_hold() -> None:
    """Events go first, the oldest before the others, and are counted; then retained values."""
    held = Spare()
    assert held.hold([Message("run", b"1", retain=True)]) == 0
    dropped = held.hold(Message("event", b"%d" % n) for n in range(spare.MAX_ROWS + 9))
    assert dropped == 10
    assert len(held.messages) == spare.MAX_ROWS
    payloads = [message.payload for message in held.messages.values()]
    assert payloads[:2] == [b"1", b"10"]
    big = b"x" * (spare.MAX_OCTETS - len("nodes"))
    assert held.hold([Message("nodes", big, retain=True)]) == spare.MAX_ROWS
    assert [message.topic for message in held.messages.values()] == ["nodes"]


def test_numbers_of_others_are_given_back() -> None:
    """They are in the database."""
    held = Spare()
    held.hold([Message("event", b"1")])
    assert held.delete([5, held.last_id()]) == [5]
    assert held.messages == {}
    assert held.last_id() == 0
