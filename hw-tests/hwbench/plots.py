"""Plots as inline SVG: points over a number, and steps over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Final

Point = tuple[float, float]

_WIDTH: Final = 760
_INNER_HEIGHT: Final = 230
_LEFT, _RIGHT, _BOTTOM = 48, 168, 42
_TITLE_HEIGHT: Final = 28
_ROW_HEIGHT: Final = 12
_LETTER_WIDTH: Final = 6  # of the marks' texts, more or less
_TICKS: Final = 6
_STEPS: Final = (1, 2, 5)
COLOURS: Final = ("#1f6fb4", "#c4560c", "#2b8a3e", "#8e44ad")


@dataclass(slots=True)
class Plot:
    """Axes and what is drawn between them; both axes begin at zero."""

    x_title: str
    y_title: str
    series: dict[str, Sequence[Point]]
    marks: Sequence[tuple[float, str]] = ()
    as_steps: bool = False
    _x_max: float = field(init=False, default=0.0)
    _y_max: float = field(init=False, default=0.0)
    _top: int = field(init=False, default=_TITLE_HEIGHT)

    def svg(self) -> str:
        """Return the plot as an `<svg>` element."""
        points = [point for series in self.series.values() for point in series]
        times = [x for x, _ in points] + [x for x, _ in self.marks]
        self._x_max = max([*times, 1.0]) * 1.02
        self._y_max = max([*(y for _, y in points), 1.0]) * 1.08
        rows = self._rows()
        self._top = _TITLE_HEIGHT + _ROW_HEIGHT * (max(rows, default=-1) + 1)
        parts = [
            f'<svg viewBox="0 0 {_WIDTH} {self._bottom + _BOTTOM}" role="img" '
            f'aria-label="{escape(self.y_title)} over {escape(self.x_title)}">',
            *self._axes(),
            *self._marks(rows),
        ]
        for series, colour in zip(self.series.values(), COLOURS, strict=False):
            draw = self._steps if self.as_steps else self._dots
            parts += draw(series, colour)
        parts += self._legend()
        return "\n".join([*parts, "</svg>"])

    @property
    def _bottom(self) -> int:
        return self._top + _INNER_HEIGHT

    def _x(self, value: float) -> float:
        return round(_LEFT + value / self._x_max * (_WIDTH - _LEFT - _RIGHT), 1)

    def _y(self, value: float) -> float:
        return round(self._bottom - value / self._y_max * _INNER_HEIGHT, 1)

    def _rows(self) -> list[int]:
        """Return the row above the plot for the text of each mark, so that none covers another."""
        ends: list[float] = []
        rows = []
        for at, text in self.marks:
            x = self._x(at)
            row = next((n for n, end in enumerate(ends) if end < x), len(ends))
            ends[row : row + 1] = [x + _LETTER_WIDTH * (len(text) + 1)]
            rows.append(row)
        return rows

    def _axes(self) -> Iterable[str]:
        bottom, right = self._bottom, self._x(self._x_max)
        for value in ticks(self._x_max):
            x = self._x(value)
            yield f'<line class="grid" x1="{x}" y1="{self._top}" x2="{x}" y2="{bottom}"/>'
            yield f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
        for value in ticks(self._y_max):
            y = self._y(value)
            yield f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{right}" y2="{y}"/>'
            yield f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>'
        middle = (_LEFT + right) / 2
        x_title, y_title = escape(self.x_title), escape(self.y_title)
        yield f'<text x="{middle}" y="{self._bottom + 34}" text-anchor="middle">{x_title}</text>'
        yield f'<text x="{_LEFT - 36}" y="{_TITLE_HEIGHT - 16}">{y_title}</text>'

    def _marks(self, rows: Iterable[int]) -> Iterable[str]:
        for (at, text), row in zip(self.marks, rows, strict=True):
            x, y = self._x(at), _TITLE_HEIGHT + _ROW_HEIGHT * row
            kind = "fault" if text.startswith("fault") else "state"
            yield f'<line class="{kind}" x1="{x}" y1="{y - 8}" x2="{x}" y2="{self._bottom}"/>'
            yield f'<text class="{kind}" x="{x + 3}" y="{y}">{escape(text)}</text>'

    def _dots(self, series: Sequence[Point], colour: str) -> Iterable[str]:
        for x, y in series:
            yield f'<circle cx="{self._x(x)}" cy="{self._y(y)}" r="4" fill="{colour}"/>'
        means = mean_by_x(series)
        if len(means) > 1:
            path = " ".join(f"{self._x(x)},{self._y(y)}" for x, y in means)
            yield f'<polyline points="{path}" fill="none" stroke="{colour}"/>'

    def _steps(self, series: Sequence[Point], colour: str) -> Iterable[str]:
        if not series:
            return
        corners = [series[0]]
        for (_, before), (x, y) in pairwise(series):
            corners += [(x, before), (x, y)]
        path = " ".join(f"{self._x(x)},{self._y(y)}" for x, y in corners)
        yield f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>'

    def _legend(self) -> Iterable[str]:
        x = _WIDTH - _RIGHT + 16
        for number, (name, colour) in enumerate(zip(self.series, COLOURS, strict=False)):
            y = self._top + 14 + 18 * number
            yield f'<rect x="{x}" y="{y - 9}" width="10" height="10" fill="{colour}"/>'
            yield f'<text x="{x + 16}" y="{y}">{escape(name)}</text>'


def ticks(maximum: float) -> list[float]:
    """Return round numbers from zero to the maximum, at most seven or so."""
    scale = 1.0
    while True:
        for step in _STEPS:
            if maximum / (step * scale) <= _TICKS:
                return [n * step * scale for n in range(int(maximum / (step * scale)) + 1)]
        scale *= 10


def mean_by_x(series: Iterable[Point]) -> list[Point]:
    """Return the mean of all points with the same x, in the order of x."""
    by_x: dict[float, list[float]] = {}
    for x, y in series:
        by_x.setdefault(x, []).append(y)
    return [(x, sum(ys) / len(ys)) for x, ys in sorted(by_x.items())]
