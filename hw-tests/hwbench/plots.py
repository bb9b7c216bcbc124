"""Plots as inline SVG: points over a number, and steps over time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Final

Point = tuple[float, float]

_WIDTH: Final = 760
_HEIGHT: Final = 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 168, 28, 42
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

    def svg(self) -> str:
        """Return the plot as an `<svg>` element."""
        points = [point for series in self.series.values() for point in series]
        times = [x for x, _ in points] + [x for x, _ in self.marks]
        self._x_max = max([*times, 1.0]) * 1.02
        self._y_max = max([*(y for _, y in points), 1.0]) * 1.08
        parts = [
            f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
            f'aria-label="{escape(self.y_title)} over {escape(self.x_title)}">',
            *self._axes(),
            *self._marks(),
        ]
        for series, colour in zip(self.series.values(), COLOURS, strict=False):
            draw = self._steps if self.as_steps else self._dots
            parts += draw(series, colour)
        parts += self._legend()
        return "\n".join([*parts, "</svg>"])

    def _x(self, value: float) -> float:
        return round(_LEFT + value / self._x_max * (_WIDTH - _LEFT - _RIGHT), 1)

    def _y(self, value: float) -> float:
        return round(_HEIGHT - _BOTTOM - value / self._y_max * (_HEIGHT - _TOP - _BOTTOM), 1)

    def _axes(self) -> Iterable[str]:
        bottom, right = self._y(0), self._x(self._x_max)
        for value in ticks(self._x_max):
            x = self._x(value)
            yield f'<line class="grid" x1="{x}" y1="{_TOP}" x2="{x}" y2="{bottom}"/>'
            yield f'<text x="{x}" y="{bottom + 16}" text-anchor="middle">{value:g}</text>'
        for value in ticks(self._y_max):
            y = self._y(value)
            yield f'<line class="grid" x1="{_LEFT}" y1="{y}" x2="{right}" y2="{y}"/>'
            yield f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{value:g}</text>'
        middle = (_LEFT + right) / 2
        x_title, y_title = escape(self.x_title), escape(self.y_title)
        yield f'<text x="{middle}" y="{_HEIGHT - 8}" text-anchor="middle">{x_title}</text>'
        yield f'<text x="{_LEFT - 36}" y="{_TOP - 12}">{y_title}</text>'

    def _marks(self) -> Iterable[str]:
        for number, (time_s, text) in enumerate(self.marks):
            x, y = self._x(time_s), _TOP + 10 + 12 * (number % 4)
            kind = "fault" if text.startswith("fault") else "state"
            yield f'<line class="{kind}" x1="{x}" y1="{_TOP}" x2="{x}" y2="{self._y(0)}"/>'
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
            y = _TOP + 14 + 18 * number
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
