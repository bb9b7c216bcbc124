"""PB-GATT of the emulated boards: failures and the silent death."""

from __future__ import annotations

import asyncio

import pytest

from fastprovd.emulator.air import Air
from fastprovd.emulator.hosts import Host
from fastprovd.mesh.proxy import ProxyPduType
from tests.conftest import RunVirtual
from tests.emulator.top import PROVISIONING, Top, address_of


async def opened(seed: int = 0) -> Top:
    air = Air(seed)
    air.add_board(address_of(1))
    top = Top(air)
    await top.connect(await top.find_unprovisioned())
    top.subscribe(PROVISIONING)
    return top


async def say(top: Top, pdu: str, wait_s: float = 0.2) -> list[str]:
    before = len(top.proxy_pdus)
    top.write(ProxyPduType.PROVISIONING_PDU, bytes.fromhex(pdu))
    await asyncio.sleep(wait_s)
    return [payload.hex() for _, _, payload in top.proxy_pdus[before:]]


@pytest.mark.parametrize(
    ("pdus", "failure"),
    [
        (["020000000000"], "0903"),
        (["0000", "0000"], "0903"),
        (["1f00"], "0901"),
        (["0000", "020500000000"], "0902"),
        (["0000", "020000000000", "03" + "11" * 64], "0903"),
    ],
)
async def test_a_wrong_pdu_fails_and_the_link_stays(pdus: list[str], failure: str) -> None:
    """Each failure has its code; afterwards everything is unexpected, and the link is up."""
    top = await opened()
    answers: list[str] = []
    for pdu in pdus:
        answers += await say(top, pdu)
    assert answers[-1] == failure
    assert await say(top, "0000") == ["0903"]
    assert top.link is not None


async def test_six_seconds_of_silence_kill_the_session() -> None:
    """After 6 s nothing is answered, a second CCC write does not help, a reconnect does."""
    top = await opened()
    assert await say(top, "0000") == ["010100030000000000000000"]
    await asyncio.sleep(6.0)
    assert await say(top, "020000000000") == []
    top.subscribe(PROVISIONING)
    assert await say(top, "0000") == []
    assert top.link is not None
    top.disconnect()
    await top.connect(address_of(1))
    top.subscribe(PROVISIONING)
    assert await say(top, "0000") == ["010100030000000000000000"]


async def test_the_timer_starts_with_the_ccc_write() -> None:
    """The 6 s cover the time to the Invite; before the CCC write there is no limit."""
    air = Air()
    air.add_board(address_of(1))
    top = Top(air)
    await top.connect(await top.find_unprovisioned())
    await asyncio.sleep(20.0)
    top.subscribe(PROVISIONING)
    await asyncio.sleep(5.9)
    assert await say(top, "0000") == ["010100030000000000000000"]
    top.disconnect()
    await top.connect(address_of(1))
    top.subscribe(PROVISIONING)
    await asyncio.sleep(6.1)
    assert await say(top, "0000") == []


async def test_a_second_provisioning_link_is_dropped() -> None:
    """The board stays connectable while it is provisioned, but hangs up on a second one."""
    air = Air()
    air.add_board(address_of(1))
    first, second = Top(air), Top(air, adapter="hci1")
    await first.connect(await first.find_unprovisioned())
    first.subscribe(PROVISIONING)
    await second.connect(address_of(1))
    second.subscribe(PROVISIONING)
    await asyncio.sleep(0.2)
    assert [reason for _, reason in second.disconnections] == [0x13]
    await first.provision(5)


@pytest.mark.parametrize("host", [Host.NIMBLE, Host.BLUEDROID], ids=lambda host: host.name)
def test_invite_to_complete_takes_as_long_as_measured(
    run_virtual: RunVirtual[None], host: Host
) -> None:
    """Invite to Complete is 0.16 to 0.31 s, and the DevKeys of both sides are the same."""

    async def main(seed: int) -> float:
        air = Air(seed)
        board = air.add_board(address_of(1), host=host)
        top = Top(air)
        await top.connect(await top.find_unprovisioned())
        begun = top.loop.time()
        dev_key = await top.provision(5)
        assert board.unicast_address == 5
        assert board.parent is None
        assert board.node is not None
        assert board.node.stack.dev_keys[5].octets == dev_key.octets
        return top.loop.time() - begun

    times = [run_virtual(main(seed)) for seed in range(10)]
    assert min(times) >= 0.13
    assert max(times) <= 0.31
