"""The reasons say what was chosen, and why."""

from __future__ import annotations

import re

import pytest

from fastprovd.campaign.forecast import forecast
from fastprovd.campaign.reasons import reasons
from fastprovd.campaign.settings import Method, RunSettings

AUTO = Method.AUTO
BEYOND = RunSettings(method=AUTO, expected=12)
TWO_LINKS = RunSettings(method=AUTO, expected=12, links=2)
NARROW = RunSettings(method=AUTO, expected=12, unicast_max=0x0010)
DIRECT = RunSettings(method=Method.DIRECT, expected=12)


@pytest.mark.parametrize(
    ("settings", "heard", "sentence"),
    [
        (RunSettings(), 5, "method fast: as told; fast is expected to take .*, direct 2 s with 5"),
        (RunSettings(method=Method.DIRECT), 5, "method direct: as told"),
        (RunSettings(method=AUTO), 5, "method direct: 2 s with 5 links, fast would take 17..19 s"),
        (RunSettings(method=AUTO, links=1), 80, "method fast: .*, direct would take 247 s with 1"),
        (RunSettings(expected=6), 5, "method fast: as told; 1 board is not heard, and boards prov"),
        (
            BEYOND,
            5,
            "method direct: 2 s with 5 links for the 5 boards heard, fast would take 17..1",
        ),
        (BEYOND, 5, "7 boards are not heard: the 3 quietest of our nodes, .* are made Primaries"),
        (BEYOND, 3, "9 boards are not heard: all 3 nodes of ours are made Primaries for them"),
        (BEYOND, 1, "11 boards are not heard: our only node is made a Primary for them"),
        (TWO_LINKS, 5, "7 boards .* the 2 quietest .*nearest to them, .no more than 2 links. are"),
        (NARROW, 5, "7 boards are not heard and will be missing: too few addresses"),
        (DIRECT, 5, "7 boards are not heard and will be missing: with method direct nobody"),
        (BEYOND, 5, "every board below the Primaries .*the Primaries and some of our own nodes k"),
        (BEYOND, 5, "expected time 24..26 s: 2 s for those .* 20 s for the others .measured"),
        (RunSettings(primaries=2, expected=12), 1, "1 Primary: 2 were asked for, for 1 board in r"),
        (RunSettings(expected=30), 1, "1 Primary: 2 would be faster, but only 1 is heard"),
        (
            RunSettings(),
            5,
            "a spare plain node is provisioned before the start, which takes about 2",
        ),
        (RunSettings(unicast_max=0x20), 5, "no spare plain node: no address is left for one"),
        (RunSettings(), 5, "boards that have no address in the end and are still on the air are"),
        (RunSettings(method=Method.DIRECT), 5, "5 addresses for the 5 boards that the gateway"),
        (RunSettings(method=Method.DIRECT), 5, "no board becomes a provisioner"),
        (RunSettings(), 19, "1 Primary: two are faster and steadier only from about 20"),
        (RunSettings(), 20, "2 Primaries: 20 boards were provisioned in 17..21 s by two"),
        (RunSettings(links=1), 20, "1 Primary: each needs a link .*, and there is one"),
        (RunSettings(primaries=3), 20, "3 Primaries: as told; 2 would be chosen"),
        (
            RunSettings(primaries=7),
            20,
            "5 Primaries: 7 were asked for, for 20 boards in reach and 5 l",
        ),
        (RunSettings(), 5, "node_addr_cnt 1: "),
        (RunSettings(), 5, "ranges are resilient: 256 addresses .* serve 256 boards at most"),
        (RunSettings(unicast_max=0x20), 5, "ranges are tight, because no larger block is free: 30"),
        (RunSettings(), 12, "a list of 10 entries can be read: up to 40 are safe$"),
        (RunSettings(), 30, "a list of 14 entries .* so it may have up to 28"),
        (RunSettings(links=1), 60, "a list of 59 entries is not read, .* predicted addresses$"),
        (RunSettings(links=1), 130, "a list of 129 entries .* list ends at 120 anyway"),
        (RunSettings(), 5, "4 of 60 sources"),
        (RunSettings(links=1), 700, "a Primary would hear 117 sources, .* holds 60: "),
        (RunSettings(), 13, "2 reports of up to 4 addresses"),
        (RunSettings(), 12, "every Temporary Provisioner must hear its Primary directly"),
        (RunSettings(), 12, "every board below the Primary .*; the Primary and the spare keep"),
        (RunSettings(unicast_max=0x0A), 8, "6 boards get no share: they provision nobody"),
        (RunSettings(), 20, "expected time 33..35 s: measured on the unmodified firmware"),
    ],
)
def test_each_case_has_its_reason(settings: RunSettings, heard: int, sentence: str) -> None:
    """Exactly one of the reasons says it."""
    given = list(reasons(forecast(settings, heard, [])))
    assert len([reason for reason in given if re.match(sentence, reason)]) == 1, given


def test_a_lone_board_needs_few_words() -> None:
    """Without children there are no reports, and no one who must be heard."""
    given = " ".join(reasons(forecast(RunSettings(), 1, [])))
    assert "reports" not in given.partition("ranges")[2]
    assert "every board below" not in given


@pytest.mark.parametrize(
    ("settings", "heard", "sentence"),
    [
        (RunSettings(), 2, "a spare plain node"),
        (RunSettings(), 20, "spare plain node"),
        (RunSettings(expected=12), 1, "spare plain node"),
        (RunSettings(close="leave_open"), 5, "boards that have no address in the end"),
        (BEYOND, 5, "no board becomes a provisioner"),
        (DIRECT, 5, "are made Primaries"),
    ],
)
def test_what_a_run_does_not_do_is_not_said(
    settings: RunSettings, heard: int, sentence: str
) -> None:
    """No spare beside two Primaries or without a board for it, nothing after leaving it open."""
    assert sentence not in " ".join(reasons(forecast(settings, heard, [])))
