"""Replay protection."""

from __future__ import annotations

from fastprovd.mesh.replay import ReplayProtectionList


def test_only_newer_pdus_pass() -> None:
    """Equal and lower SEQ are replays under the same IV Index, and all SEQ under an older one."""
    replay = ReplayProtectionList()
    assert not replay.is_replay(1, 5, 100)
    replay.record(1, 5, 100)
    assert replay.is_replay(1, 5, 100)
    assert replay.is_replay(1, 5, 99)
    assert not replay.is_replay(1, 5, 101)
    assert replay.is_replay(1, 4, 200)
    assert not replay.is_replay(1, 6, 0)


def test_recording_an_older_pdu_changes_nothing() -> None:
    """The list never goes backwards."""
    replay = ReplayProtectionList(heard=[(1, 5, 100)])
    replay.record(1, 5, 50)
    assert replay.entries() == [(1, 5, 100)]


def test_full_list_refuses_new_sources_only() -> None:
    """At its capacity the list keeps serving the sources it knows."""
    replay = ReplayProtectionList(capacity=2)
    replay.record(1, 0, 1)
    replay.record(2, 0, 1)
    assert replay.is_replay(3, 0, 1)
    assert not replay.is_replay(2, 0, 2)


def test_what_was_heard_since_it_was_saved_is_unsaved() -> None:
    """What was loaded is saved; a source that was heard again while it was stored is not."""
    replay = ReplayProtectionList(heard=[(2, 0, 7)])
    assert replay.unsaved() == []
    replay.record(5, 0, 1)
    replay.record(6, 0, 1)
    stored = replay.unsaved()
    assert stored == [(5, 0, 1), (6, 0, 1)]
    replay.record(6, 0, 2)
    replay.saved(stored)
    assert replay.unsaved() == [(6, 0, 2)]
    assert sorted(replay.entries()) == [(2, 0, 7), (5, 0, 1), (6, 0, 2)]
