"""What the configuration says about a run."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final

from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.checking import Problem
from fastprovd.config import Config
from fastprovd.errors import ConfigError
from fastprovd.mesh.device_uuids import contradictions

# With `max_links = "auto"`: adapters of all makes bear that many, but for those that bear only 3.
PLANNED_LINKS: Final = 5


def run_settings(config: Config, **overrides: Any) -> RunSettings:
    """Return the configured settings of a run; an override that is `None` changes nothing.

    Raises:
        ConfigError: an override leaves no board or too few addresses.
    """
    mesh, run = config.mesh, config.run
    settings = RunSettings(
        method=Method(run.method),
        links=config.bluetooth.links_ceiling or PLANNED_LINKS,
        primaries=run.primaries,
        expected=run.expected,
        match=mesh.match,
        allow=mesh.allow,
        deny=mesh.deny,
        allow_strangers=mesh.allow_strangers,
        group=mesh.group,
        unicast_min=mesh.unicast_min,
        unicast_max=mesh.unicast_max,
        scan_s=run.scan_timeout_s,
        primary_return_s=run.proxy_timeout_s,
        settle_s=run.settle_s,
        run_s=run.run_timeout_s,
        close=run.close,
    )
    given = {name: value for name, value in overrides.items() if value is not None}
    if "method" in given:
        given["method"] = Method(given["method"])
    settings = replace(settings, **given)
    if given and (problems := list(_contradictions(settings))):
        raise ConfigError([f"{problem.path}: {problem.message}" for problem in problems])
    return settings


def _contradictions(settings: RunSettings) -> Iterator[Problem]:
    yield from contradictions(settings.match, settings.allow, settings.deny)
    capacity = settings.unicast_max - settings.unicast_min + 1
    if settings.expected is not None and settings.expected > capacity:
        yield Problem(
            "expected", f"{settings.expected} boards do not fit into the {capacity} addresses"
        )
