"""Why links to the broker end, said once each; and how long to wait before the next one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import structlog

from fastprovd.publish.client import BrokerSettings
from fastprovd.publish.failures import REMEDIES, Kind, LinkError, kind_of

log = structlog.get_logger(__name__)

BACK_OFF_BASE_S: Final = 0.5
BACK_OFF_CAP_S: Final = 60.0
_ATTEMPTS_TO_CAP: Final = 7  # 0.5 s doubled seven times is past the cap

LASTED_S: Final = 120.0
"""A link that lived this long was a good one. Longer than any pause, so that two clients with one
identifier, each of which ends the other's link when its pause is over, are not taken for one."""

_CUT_SHORT: Final = 3  # links in a row; a broker that is being set up may restart twice


class LinkWatch:
    """Keeps count of links that end; `random_share` returns 0.0..1.0, for the jitter."""

    def __init__(self, settings: BrokerSettings, random_share: Callable[[], float]) -> None:
        self._settings = settings
        self._random_share = random_share
        self._attempt = 0
        self._said: set[str] = set()
        self._cut_short = 0

    def is_new(self, what: str) -> bool:
        """Tell whether `what` is to be said aloud: the first time since a link has lasted."""
        is_new = what not in self._said
        self._said.add(what)
        return is_new

    def lasted(self) -> None:
        """The link has lived long enough: whatever comes now is new."""
        self._attempt = 0
        self._cut_short = 0
        self._said.clear()

    def ended(self, error: BaseException, *, was_up: bool, explained: bool = False) -> None:
        """There is no link, or no more. `explained`: the cause is told elsewhere, and removed."""
        kind = kind_of(error)
        if kind is Kind.LOST and was_up and not explained:
            self._cut_short += 1
            if self._cut_short >= _CUT_SHORT:
                kind = Kind.CUT_SHORT
                error = LinkError(kind, f"{self._cut_short} links in a row were cut: {error}")
        elif kind is not Kind.CUT_SHORT and was_up:
            self._cut_short = 0
        for_good, advice = REMEDIES[kind]
        if for_good and kind is not Kind.CUT_SHORT:
            self._attempt = _ATTEMPTS_TO_CAP
        report = log.debug
        if self.is_new(kind):
            report = log.error if for_good else log.warning
        settings = self._settings
        report(
            "mqtt_disconnected",
            reason=f"{settings.host}:{settings.port}: {error}",
            advice=advice.format(client_id=repr(settings.client_id), topic=settings.topics.state),
        )

    def pause_s(self) -> float:
        """Return how long to wait before the next attempt; longer each time, until one lasts."""
        ceiling = min(BACK_OFF_CAP_S, BACK_OFF_BASE_S * 2.0**self._attempt)
        self._attempt = min(self._attempt + 1, _ATTEMPTS_TO_CAP)
        return ceiling * self._random_share()
