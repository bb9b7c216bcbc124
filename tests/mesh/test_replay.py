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
