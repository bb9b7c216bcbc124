"""The demo firmware's log lines, as they are in its source, are understood."""

from __future__ import annotations

from hwbench.consoles import POWER_CUT, BoardView, Consoles
from hwbench.timeline import Entry

BOOT = [
    "ESP-ROM:esp32c3-api1-20210207",
    "rst:0x1 (POWERON),boot:0xc (SPI_FAST_FLASH_BOOT)",
    "\x1b[0;32mI (270) app_init: ELF file SHA256:  0f1e2d3c4...\x1b[0m",
    "\x1b[0;32mI (305) EXAMPLE: Initializing...\x1b[0m",
    "\x1b[0;32mI (805) EXAMPLE: BLE Mesh Fast Prov Node initialized\x1b[0m",
]
NODE = "I (9000) EXAMPLE: net_idx: 0x0000, unicast_addr: 0x0a0b"
APP_KEY = "I (9100) EXAMPLE: Config Server get Config AppKey Add"


def heard(*lines: str) -> BoardView:
    view = BoardView()
    for line in lines:
        view.hear(line)
    return view


def test_a_boot() -> None:
    """Hash and readiness come out of coloured lines."""
    view = heard(*BOOT)
    assert (view.boots, view.is_ready, view.elf_sha256) == (1, True, "0f1e2d3c4")
    assert view.address is None


def test_a_board_becomes_a_node() -> None:
    """Address and AppKey are the board's own."""
    view = heard(*BOOT, NODE, APP_KEY)
    assert (view.address, view.has_app_key) == (0x0A0B, True)
    assert view.ever_had == {0x0A0B}


def test_children() -> None:
    """A provisioner prints whom it provisioned."""
    view = heard(*BOOT, NODE, "I (1) EXAMPLE: Unicast address 0x0a0c")
    assert view.children == {0x0A0C}
    view.hear(POWER_CUT)
    assert view.children == set()


def test_lights() -> None:
    """The light is unknown until it is set."""
    view = heard(*BOOT, NODE)
    assert view.light is None
    view.hear("I (9900) EXAMPLE: onoff 0x01")
    assert view.light is True
    view.hear("I (9990) EXAMPLE: onoff 0x00")
    assert view.light is False


def test_a_reset_forgets_the_network() -> None:
    """After a boot nothing of the run before is left, but what it ever had."""
    for lines in (BOOT, ["Rebooting..."], [POWER_CUT]):
        view = heard(*BOOT, NODE, APP_KEY, "I (1) EXAMPLE: onoff 0x01", *lines)
        assert (view.address, view.has_app_key, view.light) == (None, False, None)
        assert view.ever_had == {0x0A0B}


def test_a_trial_begins_with_what_is_there() -> None:
    """Addresses of earlier trials do not count for the next one."""
    view = heard(*BOOT, NODE)
    view.begin_trial()
    assert view.ever_had == {0x0A0B}
    view.hear(POWER_CUT)
    view.begin_trial()
    assert view.ever_had == set()


def test_other_lines_mean_nothing() -> None:
    """Noise, other tags, and lines that only look alike."""
    view = heard(
        "",
        "\x00\xff garbage",
        "net_idx: 0x0000, unicast_addr: 0x0001",
        "I (1) OTHER: net_idx: 0x0000, unicast_addr: 0x0001",
        "I (1) EXAMPLE: net_idx: 0x0000, unicast_addr: 0x1",
    )
    assert view == BoardView()


def test_lines_find_their_board() -> None:
    """An entry of a board goes to its view, others to nobody."""
    consoles = Consoles(["n01", "n02"])
    consoles.hear(Entry(1.0, "n02", NODE))
    consoles.hear(Entry(1.0, "mqtt", {"state": "done"}, "bridge/run"))
    consoles.hear(Entry(1.0, "bench", NODE))
    assert [view.address for view in consoles.views.values()] == [None, 0x0A0B]
