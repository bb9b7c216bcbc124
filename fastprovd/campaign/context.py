"""What every part of a run works with."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from fastprovd.campaign.air_picture import AirPicture
from fastprovd.campaign.ports import Bearer, Store
from fastprovd.campaign.proxy_session import TopProvisioner
from fastprovd.campaign.run_log import RunLog
from fastprovd.campaign.settings import RunSettings
from fastprovd.campaign.strangers import Strangers
from fastprovd.campaign.verdict import target
from fastprovd.campaign.watch import Watch
from fastprovd.clock import Clock
from fastprovd.mesh.keys import AppKey, NetKey

# A controller that filters duplicates may tell each of a hundred boards only once.
_HEARD_ONCE: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """One run's settings, what it knows, and its ways to the world."""

    settings: RunSettings
    log: RunLog
    picture: AirPicture
    watch: Watch
    strangers: Strangers
    bearer: Bearer
    store: Store
    clock: Clock
    entropy: Callable[[int], bytes]
    top: TopProvisioner
    app_key: AppKey = field(repr=False)

    @property
    def planned(self) -> RunSettings:
        """The settings, with as many links as the adapter is known to bear now."""
        return replace(self.settings, links=self.bearer.links.now)

    @property
    def net_key(self) -> NetKey:
        """The NetKey of our network."""
        return next(iter(self.top.stack.net_keys.values()))

    @property
    def boards(self) -> int:
        """How many boards must be proven: all that were heard, or that the operator announced."""
        return target(self.settings.expected, len(self.picture.boards))

    @property
    def boards_planned_for(self) -> int:
        """For how many boards addresses are handed out.

        Anybody can advertise boards that are none: of those that the operator did not announce, few
        count that were heard only once.
        """
        boards = self.picture.boards.values()
        lasting = sum(board.reports > 1 for board in boards)
        return target(self.settings.expected, max(lasting, min(len(boards), _HEARD_ONCE)))

    @property
    def with_strangers(self) -> int:
        """The same, and the boards that are not ours and were taken all the same."""
        return self.boards + len(self.strangers.taken())
