"""Which boards are ours, the match value for them, and when a run must not start."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fastprovd.campaign.inventory import Inventory, common_beginning, refusal
from fastprovd.emulator.hosts import Host

DEMO = b"\xdd\xdd"
ADDRESSES = ("24:0A:C4:5E:00:01", "24:0A:C4:5E:00:02", "24:0A:C4:70:00:01")
BLUEDROID = [Host.BLUEDROID.device_uuid(address) for address in ADDRESSES]
NIMBLE = [Host.NIMBLE.device_uuid(address) for address in ADDRESSES]
FOREIGN = "AC:67:B2:00:00:01"


def test_without_lists_all_that_match_are_ours() -> None:
    """Nothing is selected, and the match value is the configured one."""
    inventory = Inventory(DEMO)
    assert not inventory.is_selective
    assert inventory.is_ours(BLUEDROID[0])
    assert not inventory.is_ours(bytes(16))
    assert inventory.match_value(BLUEDROID) == DEMO


def test_the_allow_list_lets_in_whole_boards_and_beginnings() -> None:
    """An address in either octet order, or the first octets of UUIDs; and only what matches."""
    inventory = Inventory(DEMO, allow=(ADDRESSES[0], "dddd240ac470"))
    assert inventory.is_ours(BLUEDROID[0])
    assert inventory.is_ours(NIMBLE[0])
    assert not inventory.is_ours(BLUEDROID[1])
    assert inventory.is_ours(BLUEDROID[2])
    assert not Inventory(b"\xdd\xdd\xaa", allow=(ADDRESSES[0],)).is_ours(BLUEDROID[0])


def test_the_deny_list_wins() -> None:
    """A board on both lists is not ours."""
    inventory = Inventory(DEMO, allow=("dddd24",), deny=(ADDRESSES[1],))
    assert [inventory.is_ours(uuid) for uuid in BLUEDROID] == [True, False, True]


def test_match_values_have_2_to_16_octets() -> None:
    """One board needs all 16, one vendor prefix 5, boards in mixed octet orders 2."""
    single = Inventory(DEMO, allow=ADDRESSES[:1])
    assert single.match_value(BLUEDROID[:1]) == BLUEDROID[0]
    assert Inventory(DEMO, allow=ADDRESSES[:2]).match_value(BLUEDROID) == BLUEDROID[0][:7]
    assert Inventory(DEMO, allow=ADDRESSES).match_value(BLUEDROID) == b"\xdd\xdd\x24\x0a\xc4"
    assert Inventory(DEMO, allow=ADDRESSES[:2]).match_value(NIMBLE) == DEMO
    assert single.match_value([]) == DEMO


def test_boards_that_were_not_heard_are_covered_too() -> None:
    """They are expected in the octet order of those that were heard."""
    inventory = Inventory(DEMO, allow=ADDRESSES)
    assert inventory.match_value(BLUEDROID[:1]) == b"\xdd\xdd\x24\x0a\xc4"
    assert Inventory(DEMO, allow=(ADDRESSES[0], "dddd24")).match_value(BLUEDROID) == DEMO + b"\x24"


def test_a_match_that_is_longer_than_an_entry_stays() -> None:
    """An entry that says less than `match` does not widen it."""
    longer = BLUEDROID[0][:6]
    assert Inventory(longer, allow=("dddd",)).match_value(BLUEDROID[:1]) == longer


@given(
    st.lists(st.tuples(st.binary(min_size=6, max_size=6), st.booleans()), min_size=1, max_size=6)
)
def test_the_match_value_covers_every_board_of_ours(boards: list[tuple[bytes, bool]]) -> None:
    """Whichever are listed, and in whichever octet order they are heard."""
    addresses = tuple(octets.hex(":") for octets, _ in boards)
    heard = [
        (Host.NIMBLE if is_nimble else Host.BLUEDROID).device_uuid(address)
        for address, (_, is_nimble) in zip(addresses, boards, strict=True)
    ]
    inventory = Inventory(DEMO, allow=addresses)
    match = inventory.match_value(heard)
    assert 2 <= len(match) <= 16
    assert all(inventory.is_ours(uuid) and uuid.startswith(match) for uuid in heard)


@given(st.lists(st.binary(max_size=4), max_size=5))
def test_common_beginning_is_the_longest(octets: list[bytes]) -> None:
    """All begin with it, and not all with one octet more."""
    common = common_beginning(octets)
    assert all(each.startswith(common) for each in octets)
    longer = {each[: len(common) + 1] for each in octets}
    assert len(longer) != 1 or longer == {common}


def test_refusal_names_the_boards_and_what_helps() -> None:
    """With a longer match value where one would do."""
    foreign = Host.BLUEDROID.device_uuid(FOREIGN)
    reason = refusal(DEMO, BLUEDROID[:2], [(foreign, FOREIGN), (bytes(16), "harmless")])
    assert reason is not None
    assert FOREIGN in reason
    assert foreign.hex() in reason
    assert 'lengthen [mesh] match, such as to "dddd240ac45e00"' in reason
    assert "harmless" not in reason
    near = refusal(DEMO, BLUEDROID[:1], [(BLUEDROID[1], ADDRESSES[1])])
    assert near is not None
    assert "lengthen" in near
    same = refusal(DEMO, NIMBLE[:2], [(NIMBLE[2], ADDRESSES[2])])
    assert same is not None
    assert "lengthen" not in same


def test_nobody_else_is_no_refusal() -> None:
    """A stranger that the match value does not let in does no harm."""
    assert refusal(BLUEDROID[0][:7], BLUEDROID[:2], [(BLUEDROID[2], ADDRESSES[2])]) is None


def test_many_strangers_are_counted() -> None:
    """Five are named."""
    strangers = [(DEMO + bytes([n]) * 14, f"board {n}") for n in range(8)]
    reason = refusal(DEMO, BLUEDROID, strangers)
    assert reason is not None
    assert reason.startswith("8 boards")
    assert "board 4" in reason
    assert "board 5" not in reason
    assert "and 3 more" in reason
