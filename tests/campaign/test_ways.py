"""Which proxy is a way in, and when another one is taken."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from fastprovd.campaign.control import CONTROL_WAITS, network_session
from fastprovd.campaign.watch import FRESH_S
from fastprovd.campaign.ways import (
    SILENT_NODES,
    Candidate,
    ForwardsNothing,
    Proxies,
    Standing,
    Ways,
    Witness,
    standing_of,
)
from fastprovd.clock import SystemClock
from fastprovd.errors import (
    ConnectionLost,
    DeviceNotFound,
    LocalProtocolError,
    MessagesDropped,
    ProxySilent,
)
from fastprovd.mesh.beacons import (
    Advertisement,
    NetworkIdentity,
    NodeIdentity,
    SecureNetworkBeacon,
    ServiceData,
    UnprovisionedDevice,
)
from fastprovd.mesh.keys import NetKey
from fastprovd.mesh.proxy import ProxyPduType
from fastprovd.records import Node, NodeRole
from tests.support.fake_bearer import FakeBearer, Script
from tests.support.fake_link import FakeLink
from tests.support.fake_mesh import (
    NET_KEY,
    PRIMARY,
    FakeMesh,
    FakeNode,
    FakeStore,
    talk,
    top_provisioner,
)

ON, OFF, MAIN, OTHER, STRANGER = 2, 3, 4, 6, 9
NODES = (
    Node(ON, "r-1", device_address="D2", gatt_proxy=True),
    Node(OFF, "r-1", device_address="D3", gatt_proxy=False),
    Node(MAIN, "r-1", NodeRole.PRIMARY_PROVISIONER),
    Node(OTHER, "r-1"),
)
NETWORK_ID = NetworkIdentity(NET_KEY.network_id)


class Time(SystemClock):
    """A clock that is set by hand."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


def identity(address: int, net_key: NetKey = NET_KEY) -> NodeIdentity:
    random = bytes([address]) * 8
    return NodeIdentity(net_key.node_identity_hash(random, address), random)


def heard(device_address: str, data: ServiceData) -> Advertisement:
    return Advertisement(device_address, data, -50, 0.0)


def after(script: Script, seconds: float) -> Script:
    """Return what is left of a script."""
    return [(at_s - seconds, what) for at_s, what in script if at_s >= seconds]


@pytest.mark.parametrize(
    ("device_address", "data", "standing"),
    [
        ("D7", NETWORK_ID, Standing.FORWARDS),
        ("D3", NETWORK_ID, Standing.SWITCHED_OFF),
        ("D7", identity(ON), Standing.FORWARDS),
        ("D7", identity(MAIN), Standing.FORWARDS),
        ("D7", identity(OTHER), Standing.UNKNOWN),
        ("D7", identity(OFF), Standing.SWITCHED_OFF),
        ("D7", identity(STRANGER), None),
        ("D7", identity(ON, NetKey(bytes(16))), None),
        ("D7", NetworkIdentity(bytes(8)), None),
        ("D2", UnprovisionedDevice(bytes(16)), None),
    ],
)
def test_what_a_proxy_is_worth(
    device_address: str, data: ServiceData, standing: Standing | None
) -> None:
    """Network ID is best, but not of a board that we switched off; strangers are nothing."""
    judge = standing_of([NET_KEY], NODES, Proxies(Time()))
    assert judge(heard(device_address, data)) is standing


def test_what_was_seen_counts_for_some_time() -> None:
    """Who forwarded is trusted, who did not is not; but a proxy that we switched off stays off."""
    clock = Time()
    proxies = Proxies(clock)
    judge = standing_of([NET_KEY], NODES, proxies)
    proxies.note("D6", forwards=True)
    proxies.note("D2", forwards=False)
    proxies.note("D3", forwards=True)
    told = [heard("D6", identity(OTHER)), heard("D2", identity(ON)), heard("D3", identity(OFF))]
    assert [judge(each) for each in told] == [
        Standing.FORWARDS,
        Standing.SILENT_LATELY,
        Standing.SWITCHED_OFF,
    ]
    clock.now = 301.0
    assert [judge(each) for each in told] == [
        Standing.UNKNOWN,
        Standing.FORWARDS,
        Standing.SWITCHED_OFF,
    ]


def test_a_group_has_no_node_identity() -> None:
    """Only unicast addresses are nodes'."""
    with pytest.raises(LocalProtocolError, match="0xc000"):
        standing_of([NET_KEY], [Node(0xC000, "r-1")], Proxies(Time()))


def test_going_back() -> None:
    """Once, to the best that did not help; not to one that is off, hopeless or unreachable."""
    ways = Ways(Proxies(Time()))
    assert ways.go_back() is None
    unknown, trusted, off, hopeless = (
        Candidate(Standing.UNKNOWN, "D1"),
        Candidate(Standing.FORWARDS, "D2"),
        Candidate(Standing.SWITCHED_OFF, "D3"),
        Candidate(Standing.FORWARDS, "D0"),
    )
    ways.not_reached(Candidate(Standing.FORWARDS, "D4"))
    assert ways.is_first
    for candidate in (off, unknown, hopeless, trusted):
        ways.take(candidate)
        ways.did_not_help(for_good=candidate is hopeless)
    assert not ways.is_first
    assert ways.passed_over == {"D0", "D1", "D2", "D3", "D4"}
    assert ways.go_back() == trusted
    assert ways.is_last
    assert ways.go_back() is None


async def test_a_proxy_that_nobody_answers_through() -> None:
    """Its own answer is none; some silent nodes are enough, and it is remembered."""
    async with talk(FakeNode(PRIMARY)) as t:
        await t.session.server_address
        ways = Ways(Proxies(SystemClock()))
        ways.take(Candidate(Standing.FORWARDS, "D5"))
        witness = Witness(t.session, ways)
        assert witness.saw(PRIMARY, answered=True)
        for address in range(10, 10 + SILENT_NODES - 1):
            assert not witness.saw(address, answered=False)
        with pytest.raises(ForwardsNothing):
            witness.saw(20, answered=False)
        assert ways.proxies.forwards("D5") is False


async def test_a_proxy_that_somebody_answers_through() -> None:
    """One answer of another node is enough; whoever is silent then is silent."""
    async with talk(FakeNode(PRIMARY)) as t:
        await t.session.server_address
        ways = Ways(Proxies(SystemClock()))
        ways.take(Candidate(Standing.UNKNOWN, "D5"))
        witness = Witness(t.session, ways)
        witness.saw(10, answered=True)
        for address in range(11, 20):
            assert not witness.saw(address, answered=False)
        assert ways.proxies.forwards("D5") is True


async def test_the_last_proxy_has_to_do() -> None:
    """There is no other left, so everybody is asked through it."""
    async with talk(FakeNode(PRIMARY)) as t:
        await t.session.server_address
        ways = Ways(Proxies(SystemClock()))
        ways.take(Candidate(Standing.FORWARDS, "D5"))
        ways.did_not_help()
        ways.go_back()
        witness = Witness(t.session, ways)
        for address in range(10, 20):
            assert not witness.saw(address, answered=False)


def reached(*good: str, greets: bool = False) -> Callable[[str], FakeLink]:
    """Return links; all but `good` swallow everything, and tell a beacon first if they `greet`."""
    mesh = FakeMesh()

    def link(device_address: str) -> FakeLink:
        if device_address in good:
            return FakeLink(mesh)
        silent = FakeMesh()
        silent.tells_filter = False
        opened = FakeLink(silent)
        if greets:
            beacon = SecureNetworkBeacon(False, silent.iv_index, NET_KEY.network_id)
            opened.say(ProxyPduType.MESH_BEACON, beacon.encode(NET_KEY))
        return opened

    return link


@pytest.mark.parametrize("greets", [True, False])
@pytest.mark.parametrize("count", [1, 2, 4])
async def test_a_proxy_without_our_key(count: int, greets: bool) -> None:
    """Whoever does not confirm the filter is passed over, now and for some time."""
    many = [(0.01 * n, heard(f"E{n}", NETWORK_ID)) for n in range(1, count + 1)]
    many.append((0.1, heard("E9", NETWORK_ID)))
    bearer = FakeBearer(*[many] * (count + 2), link=reached("E9", greets=greets))
    top = top_provisioner(FakeStore())
    proxies = Proxies(SystemClock())
    begun_s = asyncio.get_running_loop().time()
    async with network_session(bearer, top, SystemClock(), ways=Ways(proxies)) as session:
        assert session.server_address.done()
    assert len(bearer.connects) == count + 1
    assert asyncio.get_running_loop().time() - begun_s < 3 * count + 1
    async with network_session(bearer, top, SystemClock(), ways=Ways(proxies)):
        assert len(bearer.connects) == count + 2


async def test_many_proxies_that_hang_up() -> None:
    """Where it costs little more than three are tried; who can be reached is."""
    many = [(0.01 * n, heard(f"E{n}", NETWORK_ID)) for n in range(1, 7)]
    many.append((0.1, heard("E9", NETWORK_ID)))
    bearer = FakeBearer(*[many] * 8, link=reached("E9"))
    gone = ConnectionLost("it is gone")
    bearer.refuses = lambda address: None if address == "E9" else (0.5, gone)
    async with network_session(bearer, top_provisioner(FakeStore()), SystemClock()):
        assert len(bearer.connects) == 7


@pytest.mark.parametrize(("greets", "said"), [(True, MessagesDropped), (False, ProxySilent)])
async def test_nobody_has_our_key(greets: bool, said: type[Exception]) -> None:
    """However many there are a request ends; who tells its beacon says that our SEQ are too low."""
    many = [(0.01 * n, heard(f"E{n}", NETWORK_ID)) for n in range(1, 60)]
    bearer = FakeBearer(*[many] * 60, link=reached(greets=greets))
    top = top_provisioner(FakeStore())
    begun_s = asyncio.get_running_loop().time()
    with pytest.raises(said):
        async with network_session(bearer, top, SystemClock(), nodes=NODES):
            raise AssertionError("nobody can be asked")
    taken_s = asyncio.get_running_loop().time() - begun_s
    assert taken_s < CONTROL_WAITS["dead_proxies"].seconds + 3


@pytest.mark.parametrize(
    ("script", "taken", "after_s"),
    [
        # At once, whatever else is on the air.
        ([(0.1, heard("D7", NETWORK_ID))], "D7", 0.1),
        ([(0.1, heard("D2", identity(ON)))], "D2", 0.1),
        ([(0.1, heard("D3", NETWORK_ID)), (0.5, heard("D7", NETWORK_ID))], "D7", 0.5),
        ([(0.1, heard("D6", identity(OTHER))), (1.4, heard("D7", NETWORK_ID))], "D7", 1.4),
        ([(0.1, heard("D3", identity(OFF))), (2.9, heard("D2", identity(ON)))], "D2", 2.9),
        # What is worse, when nothing better came in time.
        ([(0.1, heard("D6", identity(OTHER)))], "D6", 1.5),
        ([(0.1, heard("D3", identity(OFF)))], "D3", 3.0),
        ([(0.1, heard("D3", NETWORK_ID)), (1.0, heard("D6", identity(OTHER)))], "D6", 1.5),
        ([(0.1, heard("D3", NETWORK_ID)), (2.0, heard("D6", identity(OTHER)))], "D6", 2.0),
    ],
)
async def test_the_best_in_time_is_taken(script: Script, taken: str, after_s: float) -> None:
    """A proxy that forwards at once; any other only when no better one came for a moment."""
    # The second scan hears what the first would have gone on to hear.
    bearer = FakeBearer(script, after(script, FRESH_S), link=lambda _: FakeLink(FakeMesh()))
    top = top_provisioner(FakeStore())
    begun = asyncio.get_running_loop().time()
    async with network_session(bearer, top, SystemClock(), nodes=NODES):
        ((connected_s, device_address),) = bearer.connects
    assert device_address == taken
    assert connected_s - begun == pytest.approx(after_s, abs=0.02)


@pytest.mark.parametrize("data", [NETWORK_ID, identity(OTHER)], ids=["network", "node"])
async def test_a_proxy_that_is_heard_late(data: ServiceData) -> None:
    """What a controller's filter hides shows in a fresh scan, or when the filter begins anew."""
    scripts: list[Script] = [(), (), (), [(0.5, heard("D7", data))]]
    bearer = FakeBearer(*scripts, link=lambda _: FakeLink(FakeMesh()))
    top = top_provisioner(FakeStore())
    async with network_session(bearer, top, SystemClock(), nodes=NODES):
        ((connected_s, _),) = bearer.connects
    assert connected_s - bearer.scans[0][0] == pytest.approx(3 * FRESH_S + 0.5, abs=0.02)
    assert len(bearer.scans) == 4


async def test_a_wanted_board_is_taken_at_once() -> None:
    """Who has to be asked over its own link is not compared with others."""
    script = [(0.1, heard("D7", NETWORK_ID)), (0.2, heard("D3", identity(OFF)))]
    bearer = FakeBearer(script, link=lambda _: FakeLink(FakeMesh()))
    top = top_provisioner(FakeStore())
    async with network_session(bearer, top, SystemClock(), nodes=NODES, device_address="D3"):
        ((connected_s, device_address),) = bearer.connects
    assert device_address == "D3"
    assert connected_s - bearer.scans[0][0] < 0.3


async def test_who_did_not_help_is_passed_over() -> None:
    """The next one is looked for a short time only; without one the best is gone back to."""
    mesh = FakeMesh()  # whose SEQ go on
    both = [(0.1, heard("D7", NETWORK_ID)), (0.2, heard("D2", identity(ON)))]
    bearer = FakeBearer(both, both, both, link=lambda _: FakeLink(mesh))
    top = top_provisioner(FakeStore())
    ways = Ways(Proxies(SystemClock()))
    for _ in range(3):
        async with network_session(bearer, top, SystemClock(), nodes=NODES, ways=ways):
            ways.did_not_help()
    assert [device_address for _, device_address in bearer.connects] == ["D7", "D2", "D2"]
    begun, ended = bearer.scans[2][0], bearer.scans[-1][1]
    assert ended - begun == pytest.approx(CONTROL_WAITS["another_proxy"].seconds)
    scans = len(bearer.scans)
    with pytest.raises(DeviceNotFound):
        async with network_session(bearer, top, SystemClock(), nodes=NODES, ways=ways):
            raise AssertionError("nothing is left to take")
    assert len(bearer.scans) == scans


async def test_no_more_than_three_are_tried() -> None:
    """However many proxies there are, a request ends."""
    mesh = FakeMesh()  # whose SEQ go on
    many = [(0.1 * n, heard(f"E{n}", NETWORK_ID)) for n in range(1, 9)]
    bearer = FakeBearer(*[many] * 5, link=lambda _: FakeLink(mesh))
    top = top_provisioner(FakeStore())
    ways = Ways(Proxies(SystemClock()))
    for _ in range(4):
        async with network_session(bearer, top, SystemClock(), ways=ways):
            ways.did_not_help()
    taken = [device_address for _, device_address in bearer.connects]
    assert taken == ["E1", "E2", "E3", "E1"]
    assert len(bearer.scans) == 3


async def test_a_proxy_that_can_not_be_reached() -> None:
    """It costs an attempt and is passed over; the reason comes out when all are like that."""
    both = [(0.1, heard("D7", NETWORK_ID)), (0.2, heard("D2", identity(ON)))]
    bearer = FakeBearer(both, both, both, link=lambda _: FakeLink(FakeMesh()))
    gone = ConnectionLost("it is gone")
    bearer.refuses = lambda address: (0.5, gone) if address == "D7" else None
    top = top_provisioner(FakeStore())
    async with network_session(bearer, top, SystemClock(), nodes=NODES):
        assert [device_address for _, device_address in bearer.connects] == ["D7", "D2"]
    bearer.scripts = [both[:1]]
    with pytest.raises(ConnectionLost, match="it is gone"):
        async with network_session(bearer, top, SystemClock(), nodes=NODES):
            raise AssertionError("no proxy can be reached")
