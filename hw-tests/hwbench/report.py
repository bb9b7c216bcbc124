"""report.html: one file without anything from elsewhere, for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from html import escape
from pathlib import Path
from typing import Final

from fastprovd import __version__
from hwbench.bench import Bench
from hwbench.config import BenchConfig
from hwbench.consoles import Consoles
from hwbench.plots import Plot, Point
from hwbench.records import RunRecord, TestOutcome
from hwbench.timeline import BENCH, MQTT, Entry

_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem;
  color: #1c1c1c; background: #fff }
table { border-collapse: collapse; margin: .5rem 0 1.5rem; width: 100% }
th, td { border-bottom: 1px solid #ddd; padding: .25rem .6rem; text-align: left;
  vertical-align: top }
td.n { text-align: right; font-variant-numeric: tabular-nums }
.passed, .done { color: #2b8a3e } .failed { color: #c92a2a; font-weight: 600 }
.skipped, .partial, .interrupted { color: #a15c00 }
svg { width: 100%; height: auto; font-size: 11px } svg text { fill: #333 }
svg .grid { stroke: #eee } svg line.state { stroke: #999; stroke-dasharray: 3 3 }
svg line.fault { stroke: #c92a2a } svg text.fault { fill: #c92a2a }
pre { white-space: pre-wrap; margin: 0 }
"""


def write_report(
    path: Path, bench: Bench, outcomes: Sequence[TestOutcome], begun: datetime
) -> None:
    """Write the report of a session."""
    entries = bench.timeline.since()
    path.write_text(
        page(bench.config, bench.runs, outcomes, entries, begun, bench.consoles), "utf-8"
    )


def page(
    config: BenchConfig,
    runs: Sequence[RunRecord],
    outcomes: Sequence[TestOutcome],
    entries: Sequence[Entry],
    begun: datetime,
    consoles: Consoles,
) -> str:
    """Return the whole page."""
    counts = ", ".join(
        f"{sum(o.outcome == kind for o in outcomes)} {kind}"
        for kind in ("passed", "failed", "skipped")
    )
    title = f"fastprovd on bench {config.name}"
    parts = [
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>',
        f"<style>{_STYLE}</style><h1>{escape(title)}</h1>",
        f"<p>{begun:%Y-%m-%d %H:%M:%S %z} · fastprovd {escape(__version__)} · "
        f"{len(config.boards)} boards · power by {escape(config.power)} · <b>{counts}</b></p>",
        "<h2>Outcomes</h2>",
        _outcomes(outcomes),
        "<h2>Runs</h2>",
        "<p>Clocks count from INFO_SET, elapsed from the start of the run. Alive later: how many "
        "nodes answered again, some time after its end.</p>",
        _runs(runs),
        "<h2>Both clocks over the number of boards</h2>",
        "<p>Runs that ended as done, and that nothing disturbed.</p>",
        clocks(runs).svg(),
        "<h2>Faults</h2>",
        _faults(runs),
        "<h2>Each run over time</h2>",
    ]
    for run in runs:
        parts.append(f"<h3>{escape(run.test)} <small>{escape(run.run_id)}</small></h3>")
        parts.append(progress(run, entries, [board.id for board in config.boards]).svg())
    parts += ["<h2>Boards</h2>", _boards(config, consoles), "</html>"]
    return "\n".join(parts)


# Tables


def _table(titles: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _text(value: str, kind: str = "") -> str:
    return f'<td class="{escape(kind)}">{escape(value)}</td>'


def _number(value: float | None) -> str:
    shown = "" if value is None else f"{value:.1f}" if isinstance(value, float) else str(value)
    return f'<td class="n">{shown}</td>'


def _outcomes(outcomes: Sequence[TestOutcome]) -> str:
    return _table(
        ("Test", "Outcome", "Took (s)", "Reason"),
        (
            (
                _text(outcome.name),
                _text(outcome.outcome, outcome.outcome),
                _number(outcome.duration_s),
                f"<td><pre>{escape(outcome.reason)}</pre></td>",
            )
            for outcome in outcomes
        ),
    )


def _runs(runs: Sequence[RunRecord]) -> str:
    titles = (
        *("Run", "Boards", "State", "Known", "Proven"),
        *("t_provisioned_s", "t_known_s", "t_proven_s", "elapsed_s", "Alive later", "Reason"),
    )
    rows = (
        (
            _text(run.test),
            _number(run.boards),
            _text(run.state, run.state),
            *map(_number, (run.known, run.proven, run.t_provisioned_s, run.t_known_s)),
            *map(_number, (run.t_proven_s, run.elapsed_s)),
            _alive(run),
            _text(run.reason or ""),
        )
        for run in runs
    )
    return _table(titles, rows)


def _alive(run: RunRecord) -> str:
    if run.alive is None:
        return _text("not asked")
    silent = f"; silent: {', '.join(run.silent)}" if run.silent else ""
    return _text(f"{run.alive}{silent}", "failed" if run.silent else "passed")


def _faults(runs: Sequence[RunRecord]) -> str:
    rows = [
        (
            _text(fault),
            _text(run.state, run.state),
            _text("; ".join(run.problems) or "all true", "failed" if run.problems else "passed"),
        )
        for run in runs
        for fault in run.faults
    ]
    return _table(("Fault", "The run ended", "What it said"), rows) if rows else "<p>None.</p>"


def _boards(config: BenchConfig, consoles: Consoles) -> str:
    rows: list[Iterable[str]] = []
    for board in config.boards:
        view = consoles.views[board.id]
        rows.append(
            (
                *map(_text, (board.id, board.chip, board.mac, board.firmware or "")),
                _text(view.elf_sha256 or "not printed"),
                _number(view.boots),
            )
        )
    return _table(("Board", "Chip", "Address", "Firmware", "ELF SHA-256", "Boots"), rows)


# Plots


def clocks(runs: Iterable[RunRecord]) -> Plot:
    """Return both clocks of every undisturbed run over its number of boards."""
    series: dict[str, list[Point]] = {"t_provisioned_s": [], "t_known_s": []}
    for run in runs:
        if run.state != "done" or run.faults:
            continue
        for name, value in (
            ("t_provisioned_s", run.t_provisioned_s),
            ("t_known_s", run.t_known_s),
        ):
            if value is not None:
                series[name].append((float(run.boards), value))
    return Plot("boards", "seconds after INFO_SET", dict(series))


def progress(run: RunRecord, entries: Iterable[Entry], board_ids: Iterable[str]) -> Plot:
    """Return how many boards were nodes, known and proven over one run, its states and faults."""
    mine = [e for e in entries if run.begun_s <= e.time_s and not 0 < run.ended_s < e.time_s]
    nodes: dict[str, bool] = dict.fromkeys(board_ids, False)
    consoles = Consoles(nodes)
    series: dict[str, list[Point]] = {
        "nodes, by console": [(0.0, 0.0)],
        "known, by MQTT": [(0.0, 0.0)],
        "proven, by MQTT": [(0.0, 0.0)],
    }
    marks: list[tuple[float, str]] = []
    state = None
    for entry in mine:
        at = entry.time_s - run.begun_s
        consoles.hear(entry)
        if entry.source in nodes:
            count = sum(view.address is not None for view in consoles.views.values())
            _append(series["nodes, by console"], at, count)
        elif entry.source == BENCH and entry.said.startswith("fault: "):
            marks.append((at, entry.said))
        elif _is_about(entry, run.run_id):
            _append(series["known, by MQTT"], at, entry.said["provisioned"])
            _append(series["proven, by MQTT"], at, entry.said["proven"])
            if entry.said["state"] != state:
                state = entry.said["state"]
                marks.append((at, state))
    # A run that did not end is shown as far as anything was seen.
    end = (run.ended_s or max((e.time_s for e in mine), default=run.begun_s)) - run.begun_s
    for points in series.values():
        points.append((end, points[-1][1]))
    return Plot("seconds after the start of the run", "boards", dict(series), marks, as_steps=True)


def _is_about(entry: Entry, run_id: str) -> bool:
    return (
        entry.source == MQTT
        and entry.topic == "bridge/run"
        and isinstance(entry.said, Mapping)
        and entry.said.get("run_id") == run_id
    )


def _append(points: list[Point], at: float, count: float) -> None:
    if points[-1][1] != count:
        points.append((at, float(count)))
