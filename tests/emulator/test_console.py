"""The consoles print what the demo firmware prints, and nothing that is not so."""

from __future__ import annotations

import asyncio
import re

from fastprovd.emulator.air import Air
from fastprovd.emulator.console import ELF_SHA256, Console
from fastprovd.emulator.hosts import Flaws, Host
from fastprovd.mesh.models.generic_onoff import OnOffSetUnacknowledged
from tests.emulator.top import Top, address_of

BOARDS = 9


class Scene:
    """Boards with consoles; what each printed, without its times."""

    def __init__(self, boards: int, *, host: Host = Host.BLUEDROID) -> None:
        self.air = Air(1)
        self.printed: dict[str, bytearray] = {}
        for number in range(1, boards + 1):
            board = self.air.add_board(
                address_of(number), host=host, flaws=Flaws.none(), power_on=False
            )
            octets = self.printed[board.device_address] = bytearray()
            Console(self.air, board, octets.extend)
            board.power_on()

    def lines(self, device_address: str) -> list[str]:
        text = self.printed[device_address].decode("ascii")
        assert text.endswith("\r\n")
        return [re.sub(r" \(\d+\) ", " (0) ", line) for line in text.split("\r\n")[:-1]]


def information(tag: str, text: str) -> str:
    return f"\x1b[0;32mI (0) {tag}: {text}\x1b[0m"


async def test_a_boot_and_a_provisioning_letter_by_letter() -> None:
    """Hash, readiness, address, AppKey, fast provisioning: the lines that the bench reads."""
    scene = Scene(1)
    top = Top(scene.air)
    await top.prepare()
    await top.start(count=1)
    await asyncio.sleep(10)
    assert scene.lines(address_of(1)) == [
        "rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)",
        information("app_init", f"ELF file SHA256:  {ELF_SHA256[:9]}..."),
        information("EXAMPLE", "Initializing..."),
        information("EXAMPLE", "ESP_BLE_MESH_NODE_PROV_ENABLE_COMP_EVT, err_code: 0"),
        information("EXAMPLE", "BLE Mesh Fast Prov Node initialized"),
        information("EXAMPLE", "ESP_BLE_MESH_NODE_PROV_COMPLETE_EVT"),
        information("EXAMPLE", "net_idx: 0x0000, unicast_addr: 0x0005"),
        information("EXAMPLE", "flags: 0x00, iv_index: 0x00000000"),
        information("EXAMPLE", "Config Server get Config AppKey Add"),
        information("EXAMPLE", "ESP_BLE_MESH_SET_FAST_PROV_ACTION_COMP_EVT, status_action 0x00"),
        information("EXAMPLE", "ESP_BLE_MESH_NODE_PROXY_GATT_DISABLE_COMP_EVT"),
        information("FAST_PROV_SERVER", "enable_gatt_proxy_cb: Enable BLE Mesh Relay & GATT Proxy"),
    ]


async def test_the_consoles_of_a_whole_run() -> None:
    """Every board prints its own address and its children; the Primary, who was reported to it."""
    scene = Scene(BOARDS)
    top = Top(scene.air)
    await top.prepare()
    await top.start(count=1)
    await asyncio.sleep(60)
    boards = {board.device_address: board for board in scene.air.boards}
    for device_address, board in boards.items():
        lines = "\n".join(scene.lines(device_address))
        assert board.unicast_address is not None
        assert f"net_idx: 0x0000, unicast_addr: 0x{board.unicast_address:04x}\x1b" in lines
        children = {
            (boards[child].uuid[2:8].hex(" "), f"0x{boards[child].unicast_address:04x}")
            for child in board.children
        }
        printed = re.findall(
            r"Device uuid: ([0-9a-f ]+) \x1b\[0m\n.*EXAMPLE: Unicast address (0x....)", lines
        )
        assert set(printed) == children
        assert len(printed) == len(children)
        if board.is_primary:
            listed = re.findall("FAST_PROV_SERVER: Node address: (0x....)", lines)
            own = {address for _, address in children}
            assert set(listed) == {f"0x{a:04x}" for a in board.listed_addresses} - own
            assert listed
    assert sum(len(board.children) for board in boards.values()) == BOARDS - 1


async def test_lights_and_resets() -> None:
    """A switched light is printed; an abort and a power cycle begin anew."""
    scene = Scene(1, host=Host.NIMBLE)
    (board,) = scene.air.boards
    top = Top(scene.air)
    await top.prepare()
    await asyncio.sleep(0.05)  # longer than the bind race
    before = len(scene.lines(board.device_address))
    top.send(OnOffSetUnacknowledged(onoff=True, tid=1), dst=5)
    await asyncio.sleep(1)
    assert scene.lines(board.device_address)[before:] == [
        information("EXAMPLE", "ESP_BLE_MESH_GENERIC_SERVER_STATE_CHANGE_EVT"),
        information("EXAMPLE", "onoff 0x01"),
    ]
    board.abort()
    await asyncio.sleep(4)
    lines = scene.lines(board.device_address)
    again = lines[lines.index("Rebooting...") + 1 :]
    assert again == lines[:5]
    board.power_off()
    assert scene.lines(board.device_address) == lines
    assert len(scene.air.watchers) == 1


async def test_times_count_from_the_boot() -> None:
    """ESP-IDF's milliseconds."""
    scene = Scene(1)
    await asyncio.sleep(4)
    (board,) = scene.air.boards
    board.power_off()
    await asyncio.sleep(10)
    board.power_on()
    await asyncio.sleep(4)
    text = scene.printed[board.device_address].decode("ascii")
    times = [int(found) for found in re.findall(r"I \((\d+)\) EXAMPLE", text)]
    assert times[0] == times[3] == 0
    assert all(0 < at <= 3000 for at in (*times[1:3], *times[4:6]))
