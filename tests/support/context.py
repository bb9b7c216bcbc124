"""A RunContext around fakes, for tests of one part of a run."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random

from fastprovd.campaign.air_picture import AirPicture
from fastprovd.campaign.context import RunContext
from fastprovd.campaign.ports import Bearer
from fastprovd.campaign.proxy_session import TopProvisioner
from fastprovd.campaign.run_log import RunLog
from fastprovd.campaign.settings import RunSettings
from fastprovd.campaign.strangers import Strangers
from fastprovd.campaign.watch import Watch
from fastprovd.clock import SystemClock
from fastprovd.records import Run
from tests.support.fake_bearer import FakeBearer
from tests.support.fake_mesh import APP_KEY, NET_KEY, FakeStore, top_provisioner
from tests.support.scene import Listener


def context_of(
    run: Run,
    settings: RunSettings | None = None,
    *,
    bearer: Bearer | None = None,
    store: FakeStore | None = None,
    listener: Listener | None = None,
    top: TopProvisioner | None = None,
    entropy: Callable[[int], bytes] | None = None,
) -> RunContext:
    """Return what the parts of `run` work with; what is not given is there and says nothing."""
    settings, clock, store = settings or RunSettings(), SystemClock(), store or FakeStore()
    bearer = bearer or FakeBearer()
    log = RunLog(run, store, listener or Listener(), clock)
    picture = AirPicture(settings.inventory, NET_KEY)
    # Scripts of scans count each scan; that they begin anew is the watch's own test.
    watch = Watch(bearer, picture, lambda _: None, lambda _: None, fresh_s=math.inf)
    return RunContext(
        settings=settings,
        log=log,
        picture=picture,
        watch=watch,
        strangers=Strangers(settings, log=log, picture=picture, watch=watch, clock=clock),
        bearer=bearer,
        store=store,
        clock=clock,
        entropy=entropy or Random(1).randbytes,
        top=top or top_provisioner(store),
        app_key=APP_KEY,
    )
