"""How many links an adapter bears: raised while they open, taken from refusals."""

from __future__ import annotations

import pytest

from fastprovd.bearers.link_limit import (
    MAX_LINKS,
    MAX_RETRY_S,
    RETRY_S,
    RETRY_SOON_S,
    START_LINKS,
    TRIED_BEYOND,
    LinkLimit,
)


def borne(limit: LinkLimit, links: int) -> None:
    """Let so many links open one after the other."""
    for ours in range(1, links + 1):
        limit.opened(ours)


def test_it_begins_modestly_and_grows_with_what_opens() -> None:
    """A few more than ever were open at once are tried, up to what is of any use."""
    limit = LinkLimit()
    assert limit.allowed(0.0) == START_LINKS
    borne(limit, START_LINKS)
    assert limit.allowed(0.0) == START_LINKS + TRIED_BEYOND
    borne(limit, MAX_LINKS)
    assert limit.allowed(0.0) == MAX_LINKS
    assert limit.links().found == "learning"


@pytest.mark.parametrize("bears", [1, 3, 5, 7, 10, 20])
def test_a_refusal_is_the_limit(bears: int) -> None:
    """What was open when a further one was refused is what the adapter bears."""
    limit = LinkLimit()
    borne(limit, bears)
    assert limit.refused(bears, "no answer", 0.0, certain=False)
    assert limit.allowed(1.0) == bears == limit.learnt
    links = limit.links()
    assert (links.now, links.most) == (bears, bears)
    assert links.found == f"learnt: link {bears + 1} was refused (no answer)"
    assert not limit.refused(bears, "no answer", 2.0, certain=False), "nothing new"


def test_a_number_is_a_ceiling() -> None:
    """A configured number is used at once, never exceeded, and lowered by refusals."""
    limit = LinkLimit(8)
    assert limit.allowed(0.0) == 8
    assert limit.links().found == "configured"
    borne(limit, 8)
    assert limit.allowed(0.0) == 8
    limit.refused(3, "le-connection-busy", 0.0, certain=True)
    assert limit.allowed(0.0) == 3
    assert limit.links().found == "learnt: link 4 was refused (le-connection-busy)"


def test_links_of_others_count_against_the_adapter() -> None:
    """A limit is that of the adapter; what others hold is not for us, one link always is."""
    limit = LinkLimit()
    limit.others = 2
    borne(limit, 5)
    limit.refused(5, "no answer", 0.0, certain=False)
    assert limit.learnt == 7
    limit.others = 4
    assert limit.allowed(0.0) == 3
    limit.others = 9
    assert limit.allowed(0.0) == 1


def test_more_is_tried_again_later() -> None:
    """A learnt limit is put to the test ever more seldom, and given up when it was too low."""
    limit = LinkLimit()
    borne(limit, 6)
    limit.refused(6, "no answer", 0.0, certain=True)
    now_s, pause_s = 0.0, RETRY_S
    while pause_s < MAX_RETRY_S:
        assert limit.allowed(now_s + pause_s - 1) == 6
        assert limit.allowed(now_s + pause_s) == 7
        now_s += pause_s
        pause_s = min(2 * pause_s, MAX_RETRY_S)
        assert not limit.refused(6, "no answer", now_s, certain=False)
    assert limit.opened(7)
    assert limit.learnt is None
    assert limit.allowed(now_s) == 7 + TRIED_BEYOND


def test_what_was_kept_is_used_at_once_and_tested_later() -> None:
    """A number of an earlier process needs no refusal, and is no last word."""
    limit = LinkLimit(None, kept=10, now_s=100.0)
    assert limit.allowed(100.0) == 10
    assert limit.links().found == "learnt before"
    assert limit.allowed(100.0 + RETRY_S) == 11


def test_silence_below_what_was_borne_is_soon_put_to_the_test() -> None:
    """It may have been the radio: the number is used, not kept, and given up in seconds."""
    limit = LinkLimit()
    borne(limit, 8)
    assert limit.refused(5, "no answer", 0.0, certain=False)
    assert limit.allowed(1.0) == 5
    assert limit.learnt is None
    assert limit.allowed(RETRY_SOON_S) == 6
    limit.opened(6)
    assert limit.allowed(RETRY_SOON_S) == 6 + TRIED_BEYOND


def test_nothing_is_tried_while_it_is_not_clear_who_failed() -> None:
    """After an attempt without answer the limit is held until the board has shown itself."""
    limit = LinkLimit()
    borne(limit, 4)
    limit.hold(4)
    assert limit.allowed(0.0) == 4
    limit.denied()
    assert limit.allowed(0.0) == 4 + TRIED_BEYOND
