"""Learning addresses over the Primary's proxy: the list, what is overheard, who can be named."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.collecting import Collecting
from fastprovd.campaign.planner import SAFE_LIST_ENTRIES, Plan
from fastprovd.campaign.primaries import Primaries
from fastprovd.campaign.proxy_session import ProxySession
from fastprovd.campaign.settings import RunSettings
from fastprovd.campaign.shares import Share
from fastprovd.campaign.states import WAITS
from fastprovd.clock import SystemClock
from fastprovd.errors import ConnectionLost, DeviceNotFound
from fastprovd.mesh.addresses import format_address
from fastprovd.mesh.beacons import Advertisement, NetworkIdentity, UnprovisionedDevice
from fastprovd.mesh.models.configuration_states import NodeIdentitySet, NodeIdentityStatus
from fastprovd.mesh.models.fast_provisioning import NodeAddrGet, NodeAddrStatus
from fastprovd.mesh.models.generic_onoff import OnOffGet
from fastprovd.records import AddressRange, NodeRole, ParentSource, Run, RunState
from tests.support.context import context_of
from tests.support.fake_bearer import FakeBearer, Script
from tests.support.fake_link import FakeLink
from tests.support.fake_mesh import (
    NET_KEY,
    TOP,
    FakeMesh,
    FakeNode,
    FakeStore,
    Nonces,
)
from tests.support.scene import Listener

CLOCK = SystemClock()
PRIMARY = 0x0005
SHARE = Share(0x0010, 0x00FF)
CHILDREN = list(SHARE.children)
PRIMARY_AT = "24:0A:C4:5E:00:01"
UUID = b"\xdd\xdd" + bytes(14)


def _uuid(number: int) -> bytes:
    return UUID[:-1] + bytes([number])


def _at(number: int) -> str:
    return f"24:0A:C4:5E:00:{number:02X}"


def _free(number: int) -> Advertisement:
    return Advertisement(_at(number), UnprovisionedDevice(_uuid(number)), -50, 0.0)


def _proxy(number: int) -> Advertisement:
    return Advertisement(_at(number), NetworkIdentity(NET_KEY.network_id), -50, 0.0)


async def _nothing_to_do(_: ProxySession) -> None:
    """The link is not used afterwards."""


class Scene:
    """A Primary Provisioner with `nodes` behind it; board 1 is the Primary itself.

    `lists` are its answers to NODE_ADDR_GET, the last one for ever; none is silence. An entry
    may be an access payload, for what no sound board would say.
    """

    def __init__(
        self,
        *addresses: int,
        lists: Sequence[tuple[int, ...] | bytes] = (),
        settings: RunSettings | None = None,
        airs: Sequence[Script] = ((),),
    ) -> None:
        self.primary = FakeNode(PRIMARY)
        self.primary.answers[NodeAddrGet] = lambda _: self._list()
        self.primary.answers[NodeIdentitySet] = lambda _: NodeIdentityStatus(0, 0, 0)
        self.mesh = FakeMesh(self.primary, *(FakeNode(address) for address in addresses))
        self._lists = list(lists)
        self.store = FakeStore()
        self.listener = Listener()
        self.settings = settings or RunSettings(expected=1 + len(addresses))
        self.links: list[FakeLink] = []
        self.bearer = FakeBearer(*airs, link=self._open, links=self.settings.links)
        run = Run("r-1", RunState.PROVISIONING, datetime(2026, 1, 1, tzinfo=UTC))
        context = context_of(
            run, self.settings, bearer=self.bearer, store=self.store, listener=self.listener
        )
        self.picture, self.watch, self.log = context.picture, context.watch, context.log
        self.top = context.top
        self.log.mark_info_set(CLOCK.monotonic())
        primaries = Primaries(context)
        primaries.add(Plan(PRIMARY, SHARE, 1), HeardBoard(UUID, PRIMARY_AT, -40, 0.0))
        primaries.nodes[PRIMARY].is_started = True
        self.collecting = Collecting(context, primaries)

    async def collect(self) -> None:
        """Be where a run is when it has found its Primary again, and collect."""
        await self.log.node(
            PRIMARY,
            role=NodeRole.PRIMARY_PROVISIONER,
            device_uuid=_uuid(1),
            device_address=PRIMARY_AT,
        )
        await self.collecting.over_link(PRIMARY_AT, PRIMARY, _nothing_to_do)

    def polls(self) -> list[float]:
        """Return when the list was asked for."""
        return [heard.at_s for heard in self.primary.messages(NodeAddrGet)]

    def settled_at(self) -> float:
        """Return when proving began."""
        return min(
            heard.at_s for node in self.mesh.nodes.values() for heard in node.messages(OnOffGet)
        )

    def proven(self) -> set[int]:
        """Return who is proven."""
        return {node.address for node in self.log.nodes.values() if node.proven}

    def link_to(self, mesh: FakeMesh) -> FakeLink:
        """Return a link whose PDUs are checked for their nonces."""
        link = FakeLink(mesh, watched=Nonces(self.store.journal).check)
        self.links.append(link)
        return link

    def _open(self, device_address: str) -> FakeLink:
        assert device_address == PRIMARY_AT
        return self.link_to(self.mesh)

    def _list(self) -> NodeAddrStatus | bytes | None:
        if not self._lists:
            return None
        said = self._lists.pop(0) if len(self._lists) > 1 else self._lists[0]
        return said if isinstance(said, bytes) else NodeAddrStatus(said)


async def test_the_list_is_polled_until_all_are_known() -> None:
    """It grows while it is asked for; then everybody is proven, the Primary too."""
    children = CHILDREN[:3]
    scene = Scene(*children, lists=[(), tuple(children[:1]), tuple(children)])
    await scene.collect()
    assert scene.proven() == {PRIMARY, *children}
    assert len(scene.polls()) == 3
    assert all(scene.log.nodes[child].listed for child in children)
    assert not scene.log.nodes[PRIMARY].listed
    assert [node.address for node in scene.listener.address_list] == [PRIMARY, *children]
    assert scene.log.run.t_known_s == pytest.approx(scene.polls()[2], abs=0.5)
    assert scene.log.run.t_proven_s == pytest.approx(CLOCK.monotonic(), abs=0.5)


async def test_the_primarys_own_children_are_inferred() -> None:
    """The first addresses of the share are its own; of the others nothing is known."""
    far = SHARE.sub_shares()[0].first
    scene = Scene(CHILDREN[0], far, lists=[(CHILDREN[0], far)])
    await scene.collect()
    child = scene.log.nodes[CHILDREN[0]]
    assert (child.provisioned_by, child.parent_source) == (PRIMARY, ParentSource.INFERRED)
    assert scene.log.nodes[far].provisioned_by is None


async def test_unreadable_list_entries_are_ignored() -> None:
    """What is no unicast address, our own, or given to nobody is told once; the others count."""
    entries = (0x0000, CHILDREN[0], TOP, SHARE.last + 1, 0xC000, 0x8001, 0x7FFF)
    said = b"\xc7\xe5\x02" + b"".join(entry.to_bytes(2, "little") for entry in entries)
    scene = Scene(CHILDREN[0], lists=[said])
    await scene.collect()
    assert set(scene.log.nodes) == {PRIMARY, CHILDREN[0]}
    warned = [data for kind, data in scene.listener.events if kind == "warning"]
    assert [data["about"] for data in warned] == [format_address(PRIMARY)]
    (reason,) = (data["reason"] for data in warned)
    assert "0x0000, 0x0001" in reason
    assert "and 1 more" in reason


async def test_an_unanswered_list_is_asked_for_again() -> None:
    """It ends nothing: nobody is listed, all are found by asking."""
    children = CHILDREN[:2]
    scene = Scene(*children)
    await scene.collect()
    poll_s = WAITS["list"].seconds + WAITS["poll"].seconds
    assert scene.polls() == pytest.approx([0.0, poll_s, 2 * poll_s], abs=0.5)
    assert scene.proven() == {PRIMARY, *children}
    assert not any(node.listed for node in scene.log.nodes.values())


async def test_a_list_that_may_be_long_is_not_asked_for() -> None:
    """Beyond the safe length its answer would kill the Primary; nothing else is left out."""
    settings = RunSettings(expected=1 + SAFE_LIST_ENTRIES + 1)
    scene = Scene(*CHILDREN, lists=[tuple(CHILDREN)], settings=settings)
    await scene.collect()
    assert scene.polls() == []
    assert scene.proven() == {PRIMARY, *CHILDREN}


async def test_boards_that_are_still_free_can_not_be_listed() -> None:
    """The same number of boards, one of them seen unprovisioned: the list is short enough."""
    settings = RunSettings(expected=1 + SAFE_LIST_ENTRIES + 1)
    airs = [[(0.0, _free(2))], [(0.1 * step, _free(2)) for step in range(30)]]
    scene = Scene(*CHILDREN, lists=[tuple(CHILDREN)], settings=settings, airs=airs)
    await scene.watch.listen(0.05)
    await scene.collect()
    # Until the board was not heard for 2.5 s.
    assert [round(at) for at in scene.polls()] == [0, 2, 4]


async def test_a_list_that_grew_long_is_not_asked_for_again() -> None:
    """More nodes than anybody announced count as well."""
    many = tuple(range(SHARE.first, SHARE.first + SAFE_LIST_ENTRIES))
    settings = RunSettings(expected=SAFE_LIST_ENTRIES)
    scene = Scene(lists=[many[:3], many], settings=settings)
    scene.mesh.nodes |= {address: FakeNode(address) for address in many}
    await scene.collect()
    assert len(scene.polls()) == 2
    assert scene.proven() == {PRIMARY, *many}


# When nothing changes any more


async def test_nothing_new_for_the_settle_time_is_the_end() -> None:
    """Boards are missing, none is on the air: proving begins when the list has settled."""
    settings = RunSettings(expected=4, settle_s=10.0)
    scene = Scene(CHILDREN[0], lists=[(), (CHILDREN[0],)], settings=settings)
    await scene.collect()
    # The news came with the second poll.
    assert scene.settled_at() - scene.polls()[1] == pytest.approx(11.5, abs=1.5)
    assert scene.proven() == {PRIMARY, CHILDREN[0]}


async def test_a_free_board_keeps_the_run_waiting() -> None:
    """As long as it advertises somebody may take it, but not for longer than it ever took."""
    air = [(0.5 * step, _free(2)) for step in range(200)]
    settings = RunSettings(expected=2, settle_s=10.0)
    scene = Scene(lists=[()], settings=settings, airs=[air])
    await scene.collect()
    stuck_s = WAITS["list_stuck"].seconds
    assert scene.settled_at() == pytest.approx(stuck_s + 1.0, abs=1.5)


async def test_a_board_that_left_the_air_keeps_nobody_waiting() -> None:
    """It counts as free until it can not be a late report any more."""
    air = [(0.5 * step, _free(2)) for step in range(11)]  # until 5.0 s
    settings = RunSettings(expected=2, settle_s=10.0)
    scene = Scene(lists=[()], settings=settings, airs=[air])
    await scene.collect()
    gone_s = 5.0 + WAITS["board_gone"].seconds
    assert gone_s <= scene.settled_at() <= gone_s + 4.0


async def test_a_lost_link_is_noticed_between_two_polls() -> None:
    """Not only with the next question; what was learnt stays for the next link."""
    scene = Scene(*CHILDREN[:2], lists=[(CHILDREN[0],), tuple(CHILDREN[:2])])
    collecting = asyncio.create_task(scene.collect())
    await asyncio.sleep(1.0)
    scene.links[0].hang_up()
    begun = CLOCK.monotonic()
    with pytest.raises(ConnectionLost):
        await collecting
    assert CLOCK.monotonic() == begun
    assert not scene.bearer.is_scanning
    assert CHILDREN[0] in scene.log.nodes
    await scene.log.change(state=RunState.PROVISIONING)
    await scene.collecting.over_link(PRIMARY_AT, PRIMARY, _nothing_to_do)
    assert scene.proven() == {PRIMARY, *CHILDREN[:2]}


async def test_a_lost_link_is_noticed_while_the_mesh_calms_down() -> None:
    """Proving begins with a pause, and the pause ends with the link."""
    scene = Scene(CHILDREN[0], lists=[(CHILDREN[0],)])
    collecting = asyncio.create_task(scene.collect())
    await scene.listener.reached(RunState.PROVING)
    scene.links[0].hang_up()
    with pytest.raises(ConnectionLost):
        await collecting
    assert scene.proven() == set()


# What is overheard


async def _overhear(scene: Scene, src: int, dst: int, *, device_key: bool, times: int = 1) -> None:
    for _ in range(times):
        scene.links[0].say(*scene.mesh.overheard(src, dst, device_key=device_key))
    await asyncio.sleep(0)


async def test_an_answer_to_an_app_key_names_child_and_parent() -> None:
    """A node that nobody listed yet, seen to answer its provisioner under its DevKey."""
    child, grandchild = CHILDREN[0], SHARE.sub_shares()[0].first
    scene = Scene(child, grandchild, lists=[(child,), ()])
    collecting = asyncio.create_task(scene.collect())
    await asyncio.sleep(1.0)
    await _overhear(scene, grandchild, child, device_key=True)
    await collecting
    node = scene.log.nodes[grandchild]
    assert (node.provisioned_by, node.parent_source) == (child, ParentSource.OBSERVED)
    assert node.listed
    assert scene.log.nodes[child].role is NodeRole.TEMPORARY_PROVISIONER


async def test_what_proves_nothing_teaches_nothing() -> None:
    """AppKey traffic, sources outside of the share, and nodes that are known."""
    child, other, outside = CHILDREN[0], CHILDREN[1], 0x0300
    settings = RunSettings(expected=2)
    scene = Scene(child, other, outside, lists=[(), (), (child,)], settings=settings)
    collecting = asyncio.create_task(scene.collect())
    await asyncio.sleep(1.0)
    await _overhear(scene, other, PRIMARY, device_key=False)
    await _overhear(scene, outside, PRIMARY, device_key=True)
    await collecting
    assert set(scene.log.nodes) == {PRIMARY, child}
    assert scene.log.nodes[child].parent_source is ParentSource.INFERRED


async def test_an_observation_does_not_change_what_is_known() -> None:
    """A listed child that is overheard again keeps its parent, however often."""
    child, other = CHILDREN[:2]
    scene = Scene(child, other, lists=[(child,), (child,), (child, other)])
    collecting = asyncio.create_task(scene.collect())
    await asyncio.sleep(1.0)
    # More than are kept until the next poll.
    await _overhear(scene, child, other, device_key=True, times=1001)
    await collecting
    assert scene.log.nodes[child].provisioned_by == PRIMARY
    assert scene.proven() == {PRIMARY, child, other}


async def test_questions_wait_until_the_mesh_is_calm() -> None:
    """While PDUs of others pass, a question would only be one more."""
    child = CHILDREN[0]
    scene = Scene(child, lists=[(child,)])
    collecting = asyncio.create_task(scene.collect())
    await scene.listener.reached(RunState.PROVING)
    for _ in range(20):
        await asyncio.sleep(0.4)
        await _overhear(scene, child, PRIMARY, device_key=False)
    last = CLOCK.monotonic()
    await collecting
    calm_s = WAITS["calm"].seconds
    assert scene.settled_at() == pytest.approx(last + calm_s, abs=0.1)


async def test_a_mesh_that_never_calms_down_is_asked_all_the_same() -> None:
    """After a minute the questions leave."""
    child = CHILDREN[0]
    scene = Scene(child, lists=[(child,)])
    collecting = asyncio.create_task(scene.collect())
    await scene.listener.reached(RunState.PROVING)
    begun = CLOCK.monotonic()
    while not collecting.done():
        await asyncio.sleep(0.4)
        await _overhear(scene, child, PRIMARY, device_key=False)
    at_last_s = WAITS["calm_at_last"].seconds
    assert scene.settled_at() == pytest.approx(begun + at_last_s, abs=1.0)
    assert scene.proven() == {PRIMARY, child}


@pytest.mark.parametrize("lists", [[(CHILDREN[0],)], []], ids=("proving", "polling"))
async def test_a_primary_that_is_stuck_is_a_lost_link(lists: list[tuple[int, ...]]) -> None:
    """Its link stays, and it does not answer the filter either: nobody is called silent for it."""
    scene = Scene(CHILDREN[0], lists=lists)
    for node in scene.mesh.nodes.values():
        node.answers.pop(OnOffGet, None)
    scene.mesh.tells_filter = False
    with pytest.raises(ConnectionLost):
        await scene.collect()


# Who can not be placed


class Lonely(Scene):
    """After a run: the Primary is proven, `nodes` are listed and silent.

    Boards 2 and on are heard while they are free, and their proxies later, in the order of
    `proxies`; `meshes` are what a link to each leads to.
    """

    def __init__(
        self,
        proxies: Sequence[int],
        meshes: dict[int, FakeMesh],
        expected: int,
        links: int = 1,
    ) -> None:
        boards = [(0.1 + 0.01 * number, _free(number)) for number in proxies]
        # The first is heard most often.
        reports = [
            (0.5 + 0.1 * turn + 0.001 * place, _proxy(number))
            for turn in range(15)
            for place, number in enumerate(proxies)
            if turn < max(1, 15 - place)
        ]
        super().__init__(
            settings=RunSettings(expected=expected, links=links), airs=[boards, reports]
        )
        self._meshes = meshes

    async def identify(self, *silent: int) -> list[str]:
        """Hear the boards, then identify; return which proxies were tried."""
        await self.log.node(PRIMARY, proven=True, device_address=PRIMARY_AT)
        for address in silent:
            await self.log.node(address, listed=True)
        await self.watch.listen(1.0)
        await self.collecting.identify_silent()
        return [device_address for _, device_address in self.bearer.connects]

    def _open(self, device_address: str) -> FakeLink:
        return self.link_to(self._meshes[int(device_address[-2:], 16)])


def _without_app_key(address: int) -> FakeMesh:
    return FakeMesh(FakeNode(address, answers={}))


async def test_a_silent_node_is_named_by_its_proxy() -> None:
    """It answers the filter message; it stays unproven, but the operator knows which board."""
    scene = Lonely([2], {2: _without_app_key(CHILDREN[0])}, expected=2)
    assert await scene.identify(CHILDREN[0]) == [_at(2)]
    node = scene.log.nodes[CHILDREN[0]]
    assert (node.device_address, node.device_uuid) == (_at(2), _uuid(2))
    assert not node.proven


async def test_a_node_that_nobody_listed_is_found_by_its_proxy() -> None:
    """It is added and proven, and its parent is inferred as of every other node."""
    scene = Lonely([2], {2: FakeMesh(FakeNode(CHILDREN[1]))}, expected=2)
    await scene.identify()
    node = scene.log.nodes[CHILDREN[1]]
    assert node.proven
    assert not node.listed
    assert node.device_uuid == _uuid(2)
    assert node.provisioned_by == PRIMARY


async def test_a_node_of_an_earlier_run_is_none_of_this_one() -> None:
    """Its proxy is on the air as well; it neither counts nor loses what is known of it."""
    old = 0x0400
    scene = Lonely([2], {2: FakeMesh(FakeNode(old))}, expected=2)
    scene.store.reserve_addresses(AddressRange(old, old, "r-0", "fast provisioning"))
    assert await scene.identify() == [_at(2)]
    assert set(scene.log.nodes) == {PRIMARY}


async def test_an_unknown_board_is_named_without_uuid() -> None:
    """A proxy that was never heard unprovisioned has an address, and no UUID."""
    scene = Lonely([2], {2: _without_app_key(CHILDREN[0])}, expected=2)
    scene.picture.boards.clear()
    scene.bearer.scripts[0] = ()
    await scene.identify(CHILDREN[0])
    node = scene.log.nodes[CHILDREN[0]]
    assert (node.device_address, node.device_uuid) == (_at(2), None)


async def test_nobody_is_identified_when_nobody_is_missing() -> None:
    """No scan, no link."""
    scene = Lonely([2], {}, expected=1)
    scene.bearer.scripts[0] = ()
    assert await scene.identify() == []
    assert len(scene.bearer.scans) == 1, "the one of the test"


async def test_identifying_ends_with_the_last_missing_node() -> None:
    """Proxies that are placed, and those after everybody is proven, are left alone."""
    meshes = {2: FakeMesh(FakeNode(CHILDREN[0])), 3: FakeMesh(FakeNode(CHILDREN[1]))}
    scene = Lonely([1, 2, 3], meshes, expected=2)
    # Heard unprovisioned, board 3 would be missing too.
    scene.bearer.scripts[0] = [(0.1, _free(2))]
    assert await scene.identify(CHILDREN[0]) == [_at(2)]
    assert scene.proven() == {PRIMARY, CHILDREN[0]}


async def test_a_proxy_that_can_not_be_identified_costs_nothing_else() -> None:
    """One that refuses the link, one that does not tell its address: the third is identified."""
    mute = _without_app_key(CHILDREN[1])
    mute.tells_filter = False
    scene = Lonely([2, 3, 4], {3: mute, 4: _without_app_key(CHILDREN[2])}, expected=4)
    scene.bearer.refuses = lambda at: (16.0, DeviceNotFound("gone")) if at == _at(2) else None
    with capture_logs() as logs:
        tried = await scene.identify(*CHILDREN[:3])
    assert tried == [_at(2), _at(3), _at(4)]
    failed = [entry["address"] for entry in logs if entry["event"] == "proxy_not_identified"]
    assert failed == [_at(2), _at(3)]
    assert scene.log.nodes[CHILDREN[2]].device_address == _at(4)


async def test_proxies_are_identified_side_by_side() -> None:
    """As many as the adapter bears links; those that are gone cost their time together."""
    scene = Lonely(range(2, 10), {}, expected=10, links=4)
    scene.bearer.refuses = lambda _: (16.0, DeviceNotFound("gone"))
    await scene.identify(*range(0x0010, 0x0018))
    assert len(scene.bearer.connects) == 8
    assert CLOCK.monotonic() == pytest.approx(1.0 + WAITS["quiet_air"].seconds + 32.0, abs=0.5)


async def test_identifying_is_given_up_after_its_deadline() -> None:
    """Proxies that are gone cost 16 s each; what is left then stays unidentified."""
    scene = Lonely(range(2, 60), {}, expected=60)
    scene.bearer.refuses = lambda _: (16.0, DeviceNotFound("gone"))
    begun = CLOCK.monotonic()
    with capture_logs() as logs:
        tried = await scene.identify(*range(0x0010, 0x004A))
    limit_s = WAITS["identify"].seconds
    assert len(tried) == len(set(tried)) == int((limit_s - WAITS["quiet_air"].seconds) / 16) + 1
    assert CLOCK.monotonic() - begun <= 1.0 + limit_s + 16.0
    assert "proxies_left_unidentified" in [entry["event"] for entry in logs]
