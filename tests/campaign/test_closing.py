"""What closing makes of a Primary that does not confirm, and of boards that go on joining."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from fastprovd.campaign.closing import Closing
from fastprovd.campaign.collecting import Collecting
from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.campaign.settings import Close, RunSettings
from fastprovd.campaign.states import WAITS
from fastprovd.clock import SystemClock
from fastprovd.errors import ConnectionLost
from fastprovd.mesh.models.fast_provisioning import InfoSet
from fastprovd.mesh.models.fast_provisioning_info import STOPPING, InfoStatus, InfoStatusBit
from fastprovd.mesh.models.generic_onoff import OnOffSet, OnOffStatus
from fastprovd.records import NodeRole, Run, RunState, Window
from tests.support.context import context_of
from tests.support.fake_mesh import PRIMARY, FakeNode, Talk, talk

CLOCK = SystemClock()
CHILD = 0x0010
IDLE = InfoStatus.of({InfoStatusBit.ACTION: 1})


@dataclass
class FakeCollecting:
    """Everybody is known; in the first `joins` looks somebody joins."""

    joins: int = 0
    proven: list[float] = field(default_factory=list)
    sessions: dict[int, ProxySession] = field(default_factory=dict)

    forgotten: frozenset[int] = frozenset()

    def unaccounted(self) -> int:
        return 0

    async def pause(self, session: ProxySession, seconds: float) -> None:
        await Collecting.pause(cast(Any, self), session, seconds)

    async def look(self, session: ProxySession) -> bool:
        self.joins -= 1
        return self.joins >= 0

    async def prove(self, session: ProxySession) -> None:
        self.proven.append(CLOCK.monotonic())

    async def ask_unlinked(self, session: ProxySession) -> None:
        """There is a link to the only Primary."""

    async def ask_doubted(self, session: ProxySession) -> bool:
        return False


async def close(
    opened: Talk, collecting: FakeCollecting | None = None, way: Close = "suspend"
) -> Run:
    """Close the window below the Primary and one child, as at the end of a run."""
    run = Run("r-1", RunState.PROVING, datetime(2026, 1, 1, tzinfo=UTC), match=b"\xdd\xdd")
    context = context_of(
        run, RunSettings(close=way), top=opened.top, entropy=lambda count: count * b"\xff"
    )
    run_log = context.log
    run_log.mark_info_set(CLOCK.monotonic())
    await run_log.node(PRIMARY, role=NodeRole.PRIMARY_PROVISIONER, proven=True, onoff=True)
    await run_log.node(CHILD, proven=True, onoff=False)
    fake = collecting or FakeCollecting()
    fake.sessions = {PRIMARY: opened.session}
    closing = Closing(context, cast(Collecting, fake))
    await closing.close(opened.session)
    return run_log.run


async def test_two_quiet_rounds_close_the_window() -> None:
    """Each is told to all nodes, confirmed by the Primary, and watched for 12 s."""
    primary = FakeNode(PRIMARY, answers={InfoSet: lambda _: STOPPING})
    async with talk(primary) as opened:
        run = await close(opened)
        assert (run.state, run.window) == (RunState.CLOSING, Window.CLOSED)
        asked = [heard.at_s for heard in primary.messages(InfoSet)]
        assert len(asked) == 2
        assert run.t_closed_s == pytest.approx(2 * WAITS["stop"].seconds, abs=3.0)
        assert run.window_evidence is not None
        assert "went to all nodes 2 times" in run.window_evidence


async def test_a_join_begins_the_count_again() -> None:
    """Whoever joined is asked, and two more rounds must be quiet."""
    primary = FakeNode(PRIMARY, answers={InfoSet: lambda _: STOPPING})
    async with talk(primary) as opened:
        collecting = FakeCollecting(joins=1)
        run = await close(opened, collecting)
        assert run.window is Window.CLOSED
        assert len(primary.messages(InfoSet)) == 3
        assert len(collecting.proven) == 1


@pytest.mark.parametrize("answer", [None, IDLE], ids=("silent", "idle"))
async def test_a_primary_that_does_not_confirm_proves_nothing(answer: InfoStatus | None) -> None:
    """Silent, or not a provisioner at all: unknown at the deadline, with the evidence there is."""
    async with talk(FakeNode(PRIMARY, answers={InfoSet: lambda _: answer})) as opened:
        run = await close(opened)
        assert (run.window, run.t_closed_s) == (Window.UNKNOWN, None)
        assert run.window_evidence is not None
        assert "did not confirm it" in run.window_evidence
        assert CLOCK.monotonic() < WAITS["closing"].seconds + 30.0


async def test_boards_that_join_for_ever_end_in_time() -> None:
    """The deadline ends it, and the evidence counts the rounds."""
    primary = FakeNode(PRIMARY, answers={InfoSet: lambda _: STOPPING})
    async with talk(primary) as opened:
        run = await close(opened, FakeCollecting(joins=10_000))
        assert run.window is Window.UNKNOWN
        assert run.window_evidence is not None
        assert run.window_evidence.endswith("but boards joined in 14 of 14 rounds")


async def test_every_node_confirms_the_onoff_way() -> None:
    """Each gets the light that it had, once, under a transaction number of its own."""
    nodes = [
        FakeNode(address, answers={OnOffSet: lambda message: OnOffStatus(message.onoff)})
        for address in (PRIMARY, CHILD)
    ]
    async with talk(*nodes) as opened:
        run = await close(opened, way="onoff")
        assert run.window is Window.CLOSED
        sent = [node.messages(OnOffSet)[0].message for node in nodes]
        assert [len(node.messages(OnOffSet)) for node in nodes] == [1, 1]
        assert [(message.onoff, message.tid) for message in sent] == [(True, 0), (False, 1)]


async def test_a_node_that_does_not_confirm_keeps_the_window_unknown() -> None:
    """Where each node must confirm, one that is silent proves nothing."""
    primary = FakeNode(PRIMARY, answers={OnOffSet: lambda m: OnOffStatus(m.onoff)})
    async with talk(primary, FakeNode(CHILD, answers={})) as opened:
        run = await close(opened, way="onoff")
        assert run.window is Window.UNKNOWN


async def test_a_lost_link_comes_out() -> None:
    """The caller opens another one; nothing is claimed before."""
    async with talk(FakeNode(PRIMARY, answers={InfoSet: lambda _: STOPPING})) as opened:
        opened.link.hang_up()
        with pytest.raises(ConnectionLost):
            await close(opened)
