"""What is remembered of the air."""

from __future__ import annotations

import math

from fastprovd.campaign.air_picture import (
    MAX_BOARDS,
    MAX_NAMESAKES,
    MAX_PROXIES,
    NAMESAKE_S,
    AirPicture,
    HeardBoard,
    quietest_first,
)
from fastprovd.campaign.inventory import Inventory
from fastprovd.campaign.node_times import ANY_TIME, Span
from fastprovd.mesh.beacons import (
    RSSI_UNKNOWN,
    Advertisement,
    NetworkIdentity,
    NodeIdentity,
    ServiceData,
    UnprovisionedDevice,
)
from fastprovd.mesh.keys import NetKey

NET_KEY = NetKey(bytes(range(16)))
UUID = b"\xdd\xdd" + bytes(14)


def _picture() -> AirPicture:
    return AirPicture(Inventory(b"\xdd\xdd"), NET_KEY)


def _heard(
    data: ServiceData, now: float = 0.0, address: str = "AA", rssi: int = -50
) -> Advertisement:
    return Advertisement(address, data, rssi, now)


def _identity(random: bytes, address: int = 5) -> Advertisement:
    return _heard(NodeIdentity(NET_KEY.node_identity_hash(random, address), random))


def test_boards_are_told_once_and_kept_apart() -> None:
    """Only a new UUID is returned; those without our prefix are strangers."""
    picture = _picture()
    assert picture.receive(_heard(UnprovisionedDevice(UUID))) is not None
    assert picture.receive(_heard(UnprovisionedDevice(UUID), 1.0)) is None
    stranger = picture.receive(_heard(UnprovisionedDevice(bytes(16))))
    assert stranger is not None
    assert not stranger.is_ours
    assert picture.receive(_heard(UnprovisionedDevice(bytes(16)), 1.0)) is None
    assert list(picture.boards) == [UUID]
    assert list(picture.strangers) == [bytes(16)]


def test_latecomers_are_not_counted_and_not_told_again() -> None:
    """A board that was set aside is none of the run's, and still begins with the match value."""
    picture = _picture()
    board = picture.receive(_heard(UnprovisionedDevice(UUID), 1.0))
    assert board is not None
    picture.set_aside(board)
    assert picture.receive(_heard(UnprovisionedDevice(UUID), 2.0)) is None
    assert (picture.boards, board.first_seen_s, board.last_seen_s) == ({}, 1.0, 2.0)
    assert picture.beginning_with(UUID[:2]) == [board]
    assert picture.beginning_with(b"\xdd\xee") == []


def test_unprovisioned_are_those_heard_lately() -> None:
    """A board that was silent for longer than asked counts as gone."""
    picture = _picture()
    picture.receive(_heard(UnprovisionedDevice(UUID), 1.0))
    assert len(picture.unprovisioned(3.0, 2.0)) == 1
    assert picture.unprovisioned(3.1, 2.0) == []


def test_strongest_board_is_the_loudest_not_passed_over() -> None:
    """The best RSSI ever heard decides."""
    picture = _picture()
    other = b"\xdd\xdd" + bytes(13) + b"\x01"
    picture.receive(_heard(UnprovisionedDevice(UUID), rssi=-70))
    picture.receive(_heard(UnprovisionedDevice(other), address="BB", rssi=-60))
    picture.receive(_heard(UnprovisionedDevice(UUID), rssi=-40))
    strongest = picture.strongest(set(), 0.0, 1.0)
    assert strongest is not None
    assert strongest.uuid == UUID
    second = picture.strongest({UUID}, 0.0, 1.0)
    assert second is not None
    assert second.device_address == "BB"
    assert picture.strongest({UUID, other}, 0.0, 1.0) is None


def test_node_identity_from_before_the_start_is_stale() -> None:
    """After `mark_stale` a Random heard before proves nothing, a new one does."""
    picture = _picture()
    old, new = _identity(b"a" * 8), _identity(b"b" * 8)
    picture.receive(old)
    assert picture.is_identity(old, 5)
    picture.mark_stale()
    assert not picture.is_identity(old, 5)
    assert picture.is_identity(new, 5)
    picture.receive(new)
    assert picture.is_identity(new, 5)


def test_identity_of_another_node_or_network_is_not_ours() -> None:
    """The hash ties the identity to the address and the NetKey."""
    picture = _picture()
    assert not picture.is_identity(_identity(b"a" * 8, address=6), 5)
    foreign = NodeIdentity(NetKey(bytes(16)).node_identity_hash(b"a" * 8, 5), b"a" * 8)
    assert not picture.is_identity(_heard(foreign), 5)
    assert not picture.is_identity(_heard(NetworkIdentity(NET_KEY.network_id)), 5)


def test_proxies_are_those_of_our_network_heard_lately() -> None:
    """Network ID of other networks is ignored."""
    picture = _picture()
    ours = _heard(NetworkIdentity(NET_KEY.network_id), 1.0)
    picture.receive(ours)
    picture.receive(_heard(NetworkIdentity(bytes(8)), 1.0, "BB"))
    assert picture.is_network(ours)
    assert picture.proxies_since(0.5) == ["AA"]
    assert picture.proxies_since(1.5) == []
    for _ in range(2):
        picture.receive(_heard(NetworkIdentity(NET_KEY.network_id), 2.0, "CC"))
    assert picture.proxies_since(0.5) == ["CC", "AA"]


def test_board_is_found_by_its_device_address() -> None:
    """UUID and device address of an unprovisioned board stay tied."""
    picture = _picture()
    picture.receive(_heard(UnprovisionedDevice(UUID)))
    board = picture.board_at("AA")
    assert board is not None
    assert board.uuid == UUID
    assert picture.board_at("BB") is None


def test_a_board_that_became_a_proxy_is_not_unprovisioned() -> None:
    """Its old data may be told once more when a scan begins; the later report holds."""
    picture = _picture()
    picture.receive(_heard(UnprovisionedDevice(UUID), 1.0))
    assert len(picture.unprovisioned(2.0, 5.0)) == 1
    picture.receive(_heard(NetworkIdentity(NET_KEY.network_id), 1.5))
    assert picture.unprovisioned(2.0, 5.0) == []
    picture.receive(_heard(UnprovisionedDevice(UUID), 3.0))
    assert len(picture.unprovisioned(4.0, 5.0)) == 1


def test_a_board_became_a_node_between_what_was_heard_of_it() -> None:
    """After its last report as an unprovisioned device, and before its first as a proxy."""
    picture = _picture()
    board = picture.receive(_heard(UnprovisionedDevice(UUID), 1.0))
    assert board is not None
    assert picture.became_node(board) == ANY_TIME
    picture.receive(_heard(UnprovisionedDevice(UUID), 2.0))
    network = NetworkIdentity(NET_KEY.network_id)
    picture.receive(_heard(network, 3.5))
    picture.receive(_heard(network, 9.0))
    assert picture.became_node(board) == Span(2.0, 3.5)


def test_old_data_after_a_proxy_was_heard_bounds_nothing() -> None:
    """Once it was a proxy, a report of 0x1827 may be what BlueZ repeats of before."""
    picture = _picture()
    board = picture.receive(_heard(UnprovisionedDevice(UUID), 1.0))
    assert board is not None
    network = NetworkIdentity(NET_KEY.network_id)
    picture.receive(_heard(network, 2.0))
    picture.receive(_heard(UnprovisionedDevice(UUID), 5.0))
    assert picture.became_node(board) == ANY_TIME
    picture.receive(_heard(network, 6.0))
    assert picture.became_node(board) == Span(-math.inf, 6.0)


def _uuid(number: int) -> bytes:
    return b"\xdd\xdd" + number.to_bytes(14, "big")


def test_whoever_is_heard_once_makes_room() -> None:
    """Made-up UUIDs fill no memory, and keep out nobody that goes on advertising."""
    picture = AirPicture(Inventory(b"\xdd\xdd"), NET_KEY, capacity=10)
    for number in range(5):
        for now in (0.0, 1.0):
            picture.receive(_heard(UnprovisionedDevice(_uuid(number)), now, f"A{number}"))
    for number in range(100, 10_100):
        picture.receive(_heard(UnprovisionedDevice(_uuid(number)), 2.0, f"F{number}"))
    assert len(picture.boards) == 10
    assert {_uuid(number) for number in range(5)} <= picture.boards.keys()
    assert picture.overlooked == 10_000 - 5
    late = picture.receive(_heard(UnprovisionedDevice(_uuid(7)), 3.0, "A7"))
    assert late is not None
    assert picture.boards[_uuid(7)] is late


def test_other_things_that_anybody_can_advertise_are_bounded() -> None:
    """Strangers, proxies of ours and of others, and namesakes, each from its own address."""
    picture = _picture()
    picture.receive(_heard(UnprovisionedDevice(UUID), 1.0, "AA"))
    for number in range(5000):
        address = f"F{number}"
        picture.receive(_heard(UnprovisionedDevice(number.to_bytes(16, "big")), 1.0, address))
        picture.receive(_heard(NetworkIdentity(NET_KEY.network_id), 1.0, address))
        picture.receive(_heard(NetworkIdentity(bytes(8)), 1.0, f"G{number}"))
        identity = NodeIdentity(bytes(8), number.to_bytes(8, "big"))
        picture.receive(_heard(identity, 1.0, f"H{number}"))
        picture.receive(_heard(UnprovisionedDevice(UUID), 1.0, f"N{number}"))
    assert len(picture.strangers) == MAX_BOARDS
    assert len(picture.foreign) == MAX_NAMESAKES
    assert len(picture.namesakes) == MAX_NAMESAKES
    assert len(picture.proxies_since(0.0)) == MAX_PROXIES


def test_two_boards_of_one_device_uuid_are_two_boards() -> None:
    """At the same time at two addresses; one report alone may be a mistake."""
    picture = _picture()
    for now in (1.0, 2.0, 3.0):
        picture.receive(_heard(UnprovisionedDevice(UUID), now, "AA"))
        picture.receive(_heard(UnprovisionedDevice(UUID), now, "BB"))
        if now == 1.0:
            assert picture.namesakes_on_air(now, 5.0) == []
    (namesake,) = picture.namesakes_on_air(3.0, 5.0)
    assert (namesake.uuid, namesake.device_address) == (UUID, "BB")
    assert picture.boards[UUID].device_address == "AA"
    assert picture.namesakes_on_air(60.0, 5.0) == []
    picture.receive(_heard(NetworkIdentity(NET_KEY.network_id), 4.0, "BB"))
    assert picture.namesakes_on_air(4.0, 5.0) == []


def test_a_board_may_change_its_address() -> None:
    """It was silent under the old one for longer than any filter of duplicates lasts."""
    picture = _picture()
    picture.receive(_heard(UnprovisionedDevice(UUID), 1.0, "AA"))
    picture.receive(_heard(UnprovisionedDevice(UUID), 1.0 + NAMESAKE_S + 1.0, "BB"))
    assert picture.boards[UUID].device_address == "BB"
    assert picture.namesakes == {}


def test_who_worked_with_a_board_is_not_misled() -> None:
    """It may be another device that has the Device UUID now."""
    picture = _picture()
    board = picture.receive(_heard(UnprovisionedDevice(UUID), 1.0, "AA"))
    assert board is not None
    picture.receive(_heard(UnprovisionedDevice(UUID), 1.0 + NAMESAKE_S + 1.0, "BB"))
    assert (board.device_address, board.last_seen_s) == ("AA", 1.0)


def test_who_has_the_device_uuid_of_a_node_is_a_namesake() -> None:
    """A board that was heard as a proxy did not change its address, however long ago that was."""
    picture = _picture()
    picture.receive(_heard(UnprovisionedDevice(UUID), 1.0, "AA"))
    picture.receive(_heard(NetworkIdentity(NET_KEY.network_id), 2.0, "AA"))
    for now in (100.0, 101.0):
        picture.receive(_heard(UnprovisionedDevice(UUID), now, "BB"))
    assert picture.boards[UUID].device_address == "AA"
    assert [b.device_address for b in picture.namesakes_on_air(101.0, 5.0)] == ["BB"]
    assert [b.device_address for b in picture.all_of_ours()] == ["BB"]


def test_a_board_that_is_set_apart_is_a_namesake() -> None:
    """The run knows the node whose Device UUID it has."""
    picture = _picture()
    for now in (1.0, 2.0):
        picture.receive(_heard(UnprovisionedDevice(UUID), now, "BB"))
    picture.set_apart(picture.boards[UUID])
    assert picture.unprovisioned(2.0, 5.0) == []
    assert [b.device_address for b in picture.namesakes_on_air(2.0, 5.0)] == ["BB"]


def test_a_node_restarts_at_its_own_address_only() -> None:
    """The Device UUID alone is anybody's to advertise."""
    picture = _picture()
    board = picture.receive(_heard(UnprovisionedDevice(UUID), 1.0, "AA"))
    assert board is not None
    picture.receive(_heard(NetworkIdentity(NET_KEY.network_id), 2.0, "AA"))
    assert not picture.restarted(_heard(UnprovisionedDevice(UUID), 3.0, "BB"), board)
    assert picture.restarted(_heard(UnprovisionedDevice(UUID), 3.0, "AA"), board)


def test_of_several_boards_at_one_address_none_is_named() -> None:
    """All but one of them pretend."""
    picture = _picture()
    picture.receive(_heard(UnprovisionedDevice(UUID), 1.0, "AA"))
    assert picture.board_at("AA") is picture.boards[UUID]
    picture.receive(_heard(UnprovisionedDevice(_uuid(7)), 1.0, "AA"))
    assert picture.board_at("AA") is None


def test_what_is_heard_again_outlives_what_is_not() -> None:
    """Of proxies and Randoms those make room that were not heard for longest."""
    picture = _picture()
    network = NetworkIdentity(NET_KEY.network_id)
    identity = _identity(b"a" * 8)
    for number in range(3 * MAX_PROXIES):
        picture.receive(_heard(network, float(number), f"F{number}"))
        picture.receive(_heard(NodeIdentity(bytes(8), number.to_bytes(8, "big")), 0.0, "CC"))
        picture.receive(_heard(network, float(number), "AA"))
        picture.receive(identity)
    assert picture.proxies_since(0.0)[0] == "AA"
    picture.mark_stale()
    assert not picture.is_identity(identity, 5)


def test_the_board_that_lasts_is_the_one_heard_first() -> None:
    """Of those that are still heard, and not passed over."""
    picture = _picture()
    for number, first_s in enumerate((5.0, 1.0, 3.0)):
        for now in (first_s, 9.0 if number else 5.0):
            picture.receive(_heard(UnprovisionedDevice(_uuid(number)), now, f"A{number}"))
    lasting = picture.most_lasting(set(), 10.0, 2.0)
    assert lasting is picture.boards[_uuid(1)]
    assert picture.most_lasting({_uuid(1)}, 10.0, 2.0) is picture.boards[_uuid(2)]
    assert picture.most_lasting({_uuid(1), _uuid(2)}, 10.0, 2.0) is None


def test_an_unknown_rssi_is_neither_loud_nor_quiet() -> None:
    """It is passed over for the loudest as well as for the quietest."""
    boards = [HeardBoard(bytes(16), str(rssi), rssi, 0.0) for rssi in (-90, RSSI_UNKNOWN, -30)]
    assert [board.rssi_dbm for board in quietest_first(boards)] == [-90, -30, RSSI_UNKNOWN]
    assert min(boards, key=lambda board: board.rank).rssi_dbm == RSSI_UNKNOWN
