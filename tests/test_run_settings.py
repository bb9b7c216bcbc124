"""The settings of a run out of the configuration and what a request says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from fastprovd.campaign.settings import Method
from fastprovd.config import Config, MeshConfig
from fastprovd.errors import ConfigError
from fastprovd.run_settings import run_settings


def test_overrides_win_over_the_configuration() -> None:
    """What is `None` does not."""
    settings = run_settings(Config(), method="direct", expected=7, match=None)
    assert (settings.method, settings.expected) == (Method.DIRECT, 7)
    assert settings.match == Config().mesh.match


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ({"allow": ("dddd240a",)}, "allow[0]: dddd240a is denied by dddd24, which wins"),
        ({"allow": ("dd01",)}, "allow[0]: no Device UUID of dd01 begins with match dddd"),
        ({"match": b"\xdd\xdd\x24"}, "deny[0]: dddd24 denies all boards of match dddd24"),
        ({"expected": 5}, "expected: 5 boards do not fit into the 4 addresses"),
    ],
)
def test_overrides_that_do_not_go_with_the_configuration(
    overrides: dict[str, Any], problem: str
) -> None:
    """A run for nobody, or without addresses, is refused before it begins."""
    config = replace(Config(), mesh=MeshConfig(deny=("dddd24",), unicast_max=5))
    with pytest.raises(ConfigError) as caught:
        run_settings(config, **overrides)
    assert caught.value.problems == [problem]
