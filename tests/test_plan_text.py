"""A forecast as people and programs see it."""

from __future__ import annotations

import json
import re

import pytest

from fastprovd.campaign.forecast import Forecast, forecast
from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.plan_text import plan_lines, plan_to_json

SMALL = RunSettings(unicast_min=0x000F, unicast_max=0x0020)


def sections(predicted: Forecast) -> list[list[str]]:
    """Return the lines between empty ones."""
    return [part.splitlines() for part in "\n".join(plan_lines(predicted)).split("\n\n")]


def test_a_small_plan() -> None:
    """Head, one row for each Primary, and the tree with the shares."""
    head, table, tree, why = sections(forecast(SMALL, 11, []))
    assert head == [
        "11 boards, method fast, addresses 0x000f..0x0020, expected to take 20..34 s",
    ]
    assert [re.sub("  +", "|", row) for row in table] == [
        "primary|share|serves|boards|provisioners|plain|depth|list|at most|known by|reports"
        "|sources|time",
        "0x000f|0x0010..0x0020|16|11|5|5|2|10|10|list|2|7|20..34 s",
    ]
    assert tree == [
        "Who provisions whom, filled in the order of the addresses:",
        "0x000f Primary Provisioner, share 0x0010..0x0020",
        "   0x0010 Temporary Provisioner, share 0x0016..0x0017",
        "      0x0016..0x0017 2 plain nodes",
        "   0x0011 like 0x0010, share 0x0018..0x0019",
        "   0x0012..0x0014 3 Temporary Provisioners, shares 0x001a..0x001f",
        "   0x0015 plain node",
    ]
    assert why[0] == "Why:"
    assert all(line.startswith("- ") for line in why[1:])


def test_a_spare_is_told_before_the_tree() -> None:
    """It hangs below no Primary."""
    _, own, _, tree, _ = sections(forecast(RunSettings(), 5, []))
    assert own == ["First the gateway provisions a spare plain node: 0x0103"]
    assert not any("0x0103" in line for line in tree)


def test_a_plan_for_boards_that_are_not_heard() -> None:
    """Who is provisioned by us, then the Primaries among them and their trees."""
    settings = RunSettings(method=Method.AUTO, expected=12)
    head, own, table, tree, _ = sections(forecast(settings, 5, []))
    assert head == [
        "12 boards, 5 heard, method direct, addresses 0x0002..0x0306, expected to take 24..26 s"
    ]
    assert own == [
        "The gateway itself provisions 5 boards: 0x0002..0x0006",
        "3 of them, such as 0x0004..0x0006, are then made Primaries for the 7 boards that only "
        "they may hear:",
    ]
    assert [row.split()[0] for row in table] == ["primary", "0x0004", "0x0005", "0x0006"]
    assert tree[1] == "0x0004 Primary Provisioner, share 0x0007..0x0106"
    assert tree[-1] == "0x0006 like 0x0005, share 0x0207..0x0306"


def test_a_direct_plan_has_no_tree() -> None:
    """There is nothing to show of who provisions whom."""
    head, own, why = sections(forecast(RunSettings(method=Method.DIRECT), 1, []))
    assert own == ["The gateway itself provisions 1 board: 0x0002"]
    assert head == ["1 board, method direct, addresses 0x0002, expected to take 2 s"]
    assert why[0] == "Why:"


@pytest.mark.parametrize("boards", [1, 2, 7, 8, 13, 20, 41, 100, 260, 1000, 10_000])
def test_the_tree_has_every_board_once(boards: int) -> None:
    """Of the lines with the boards that are like others, each board is in exactly one."""
    predicted = forecast(RunSettings(), boards, [])
    (_, *tree) = sections(predicted)[-2]
    assert len(tree) < 100
    sizes: dict[int, int] = {}  # boards in the subtree of the address that heads it
    heads: list[tuple[int, int]] = []
    total = 0
    for line in tree:
        found = re.match(r"( *)0x(\w+)(?:\.\.0x(\w+))? (?:(\d+) )?(like 0x(\w+))?", line)
        assert found is not None, line
        depth, first = len(found[1]) // 3, int(found[2], 16)
        count = int(found[4] or 1)
        assert int(found[3] or found[2], 16) - first + 1 == count
        heads = [(level, head) for level, head in heads if level < depth]
        size = count * (sizes[int(found[6], 16)] if found[5] else 1)
        for _, head in heads:
            sizes[head] += size
        if count == 1 and not found[5]:
            heads.append((depth, first))
            sizes[first] = 1
        total += size
    assert total == boards - (predicted.spare is not None)


def test_data_say_the_same() -> None:
    """JSON has the rows of the table, all nodes one by one, and the reasons."""
    predicted = forecast(RunSettings(expected=22), 21, [])
    data = json.loads(json.dumps(plan_to_json(predicted)))
    assert (data["boards"], data["heard"], data["method"]) == (22, 21, "fast")
    assert (data["unicast_min"], data["unicast_max"]) == ("0x0002", "0x0203")
    assert (data["own"], data["spare"], data["left_out"]) == (None, None, 0)
    assert data["ranges"] == "resilient"
    assert data["expected"] != data["fast"] != data["direct"]
    first, second = data["primaries"]
    assert first["primary"] == "0x0002"
    assert second["share"] == ["0x0104", "0x0203"]
    assert (first["boards"], first["list_entries"], first["list_entries_at_most"]) == (11, 10, 20)
    assert (first["known_by"], first["node_addr_cnt"], first["serves"]) == ("list", 1, 256)
    assert (first["temporary_provisioners"], first["plain_nodes"], first["depth"]) == (10, 0, 2)
    assert (first["reports"], first["sources"]) == (1, 7)
    assert first["nodes"][0]["provisioned_by"] is None
    assert first["nodes"][7] == {
        "addr": "0x000a",
        "provisioned_by": "0x0004",
        "share": ["0x0010", "0x0015"],
        "depth": 2,
    }
    shown = "\n".join(plan_lines(predicted))
    assert all(f"- {reason}" in shown for reason in data["reasons"])


def test_data_of_a_direct_plan() -> None:
    """What there is not is empty or null."""
    data = plan_to_json(forecast(RunSettings(method=Method.DIRECT), 3, []))
    assert (data["method"], data["ranges"], data["primaries"]) == ("direct", None, [])
    assert data["own"] == {
        "unicast_min": "0x0002",
        "unicast_max": "0x0004",
        "addresses": ["0x0002", "0x0003", "0x0004"],
    }
    spare = plan_to_json(forecast(RunSettings(), 5, []))
    assert spare["spare"] == "0x0103"
    assert spare["own"]["addresses"] == ["0x0103"]
