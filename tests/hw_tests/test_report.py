"""The report holds what happened, and needs nothing from elsewhere."""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import pytest

from hwbench import report
from hwbench.config import BenchConfig, BoardConfig, GatewayConfig
from hwbench.consoles import POWER_CUT, Consoles
from hwbench.plots import Plot, mean_by_x, ticks
from hwbench.records import RunRecord, TestOutcome, write_csv
from hwbench.timeline import Entry

BOARDS = tuple(
    BoardConfig(f"n0{n}", f"/dev/tty{n}", "esp32c3", f"24:0A:C4:00:00:0{n}") for n in (1, 2)
)
CONFIG = BenchConfig("desk-1", GatewayConfig(), "localhost", 1883, "rts", BOARDS)
BEGUN = datetime(2026, 11, 22, 7, 19, 31, tzinfo=UTC)


def a_run(name: str = "run of 2", **more: object) -> RunRecord:
    run = RunRecord(name, "r-1", 2, begun_s=100.0, ended_s=120.0, state="done")
    run.t_provisioned_s, run.t_known_s = 5.5, 8.25
    for field, value in more.items():
        setattr(run, field, value)
    return run


def run_entry(at: float, state: str, known: int, proven: int, run_id: str = "r-1") -> Entry:
    said = {"run_id": run_id, "state": state, "provisioned": known, "proven": proven}
    return Entry(at, "mqtt", said, "bridge/run")


ENTRIES = [
    Entry(90.0, "n02", "I (1) EXAMPLE: net_idx: 0x0000, unicast_addr: 0x0099"),
    run_entry(100.5, "scanning", 0, 0),
    Entry(104.0, "n01", "I (1) EXAMPLE: net_idx: 0x0000, unicast_addr: 0x0002"),
    Entry(105.0, "bench", "fault: power of n02 cut"),
    Entry(106.0, "bench", "starting the daemon"),
    run_entry(110.0, "collecting", 1, 0),
    run_entry(111.0, "collecting", 9, 9, run_id="r-0"),
    Entry(112.0, "n02", "I (1) EXAMPLE: net_idx: 0x0000, unicast_addr: 0x0003"),
    run_entry(118.0, "done", 2, 2),
    run_entry(130.0, "idle", 0, 0),
]


def page(runs: list[RunRecord], outcomes: list[TestOutcome]) -> str:
    return report.page(CONFIG, runs, outcomes, ENTRIES, BEGUN, Consoles(["n01", "n02"]))


def test_everything_is_in_the_page() -> None:
    """Outcomes with reasons, runs, faults with what came of them, boards; texts are escaped."""
    made = page(
        [a_run(), a_run("cut", state="partial", reason="1 of 2", faults=["power cut while x"])],
        [
            TestOutcome("test_a", "passed", 1.25),
            TestOutcome("test_b", "failed", 2.0, "assert 1 < 2"),
            TestOutcome("test_c", "skipped", 0.0, "no bench"),
        ],
    )
    for text in (
        *("desk-1", "1 passed, 1 failed, 1 skipped", "assert 1 &lt; 2", "no bench", "run of 2"),
        *("power cut while x", "all true", "5.5", "8.2", "24:0A:C4:00:00:02", "1 of 2"),
    ):
        assert text in made, text


def test_lies_are_in_the_page() -> None:
    """What the oracles found stands beside the fault."""
    made = page([a_run(faults=["x"], problems=["0x0009 was published, but no board"])], [])
    assert '<td class="failed">0x0009 was published, but no board</td>' in made


def test_who_was_alive_later_is_in_the_page() -> None:
    """Counted, named if silent, and told if nobody was asked."""
    made = page([a_run(alive=2), a_run(alive=1, silent=["0x0003"]), a_run()], [])
    assert '<td class="passed">2</td>' in made
    assert '<td class="failed">1; silent: 0x0003</td>' in made
    assert "not asked" in made


def test_the_page_stands_alone() -> None:
    """No address of anything elsewhere, no script."""
    made = page([a_run()], [TestOutcome("test_a", "passed", 1.0)])
    assert not re.search("https?://|src=|href=|@import|<script", made)


def test_every_plot_is_well_formed() -> None:
    """Browsers forgive much; XML does not."""
    plots = re.findall("<svg.*?</svg>", page([a_run(), a_run()], []), re.DOTALL)
    assert len(plots) == 3
    for plot in plots:
        ElementTree.fromstring(plot)  # noqa: S314 - made two lines above


def test_a_session_without_runs_has_a_report() -> None:
    """Even if every test was skipped or failed before its first run."""
    assert "None." in page([], [])


def test_progress_of_one_run() -> None:
    """Boards count from their consoles, known and proven from MQTT, all within this run only."""
    plot = report.progress(a_run(), ENTRIES, ["n01", "n02"])
    assert plot.series == {
        "nodes, by console": [(0.0, 0.0), (4.0, 1.0), (12.0, 2.0), (20.0, 2.0)],
        "known, by MQTT": [(0.0, 0.0), (10.0, 1.0), (18.0, 2.0), (20.0, 2.0)],
        "proven, by MQTT": [(0.0, 0.0), (18.0, 2.0), (20.0, 2.0)],
    }
    assert plot.marks == [
        (0.5, "scanning"),
        (5.0, "fault: power of n02 cut"),
        (10.0, "collecting"),
        (18.0, "done"),
    ]


def test_a_power_cut_lowers_the_number_of_nodes() -> None:
    """A console that has no power says nothing, but the bench knows."""
    entries = [*ENTRIES[:3], Entry(105.0, "n01", POWER_CUT)]
    plot = report.progress(a_run(), entries, ["n01", "n02"])
    assert plot.series["nodes, by console"][1:3] == [(4.0, 1.0), (5.0, 0.0)]


def test_a_run_that_did_not_end_is_shown() -> None:
    """Its plot goes as far as anything was seen."""
    plot = report.progress(a_run(ended_s=0.0), ENTRIES, ["n01"])
    assert plot.series["nodes, by console"][-1][0] == 30.0
    assert "<svg" in plot.svg()


def test_the_clocks_are_those_of_undisturbed_runs() -> None:
    """Disturbed and unfinished runs would tell nothing about speed."""
    runs = [a_run(), a_run(faults=["x"]), a_run(state="partial"), a_run(t_known_s=None)]
    assert report.clocks(runs).series == {
        "t_provisioned_s": [(2.0, 5.5), (2.0, 5.5)],
        "t_known_s": [(2.0, 8.25)],
    }


def test_texts_above_a_plot_do_not_cover_each_other() -> None:
    """Each text begins in a row where the one before it has ended."""
    marks = [(0.0, "scanning"), (0.1, "connecting"), (99.0, "done")]
    root = ElementTree.fromstring(  # noqa: S314
        Plot("x", "y", {"s": [(0.0, 0.0), (100.0, 1.0)]}, marks).svg()
    )
    rows = [text.get("y") for text in root.iter("text") if text.get("class") == "state"]
    assert rows[0] == rows[2] != rows[1]


@pytest.mark.parametrize(
    ("maximum", "expected"),
    [(1.0, [0, 1]), (10.8, [0, 2, 4, 6, 8, 10]), (61.0, [0, 20, 40, 60])],
)
def test_ticks_are_round(maximum: float, expected: list[float]) -> None:
    """Ones, twos, fives and their tens."""
    assert ticks(maximum) == expected


def test_means() -> None:
    """One for each x, in order."""
    assert mean_by_x([(10, 4.0), (3, 1.0), (10, 6.0)]) == [(3, 1.0), (10, 5.0)]


def test_the_table_of_runs(tmp_path: Path) -> None:
    """One line per run, for a spreadsheet."""
    path = tmp_path / "runs.csv"
    write_csv(path, [a_run(faults=["a", "b"], silent=["x"]), a_run(problems=['say "x", y'])])
    with path.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["run_id"], first["t_known_s"], first["faults"]) == ("r-1", "8.25", "a; b")
    assert (first["silent"], second["silent"]) == ("x", "")
    assert second["problems"] == 'say "x", y'
    assert second["t_proven_s"] == ""
