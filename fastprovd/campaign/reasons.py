"""Why a run is planned as it is, and what to expect of it, in sentences; pure."""

from __future__ import annotations

from collections.abc import Iterator

from fastprovd.campaign.forecast import REPLAY_LIST_ENTRIES, Branch, Forecast, Ranges, Reading
from fastprovd.campaign.planner import LIST_CAPACITY, SAFE_LIST_ENTRIES, choose_primaries
from fastprovd.campaign.settings import Method
from fastprovd.campaign.times import Expected
from fastprovd.mesh.models.fast_provisioning import REPORT_MAX_ADDRESSES


def reasons(forecast: Forecast) -> Iterator[str]:
    """Yield the reasons, one sentence each."""
    yield _method(forecast)
    if forecast.method is Method.DIRECT:
        first, last = forecast.reserved
        yield (
            f"{last - first + 1} addresses are taken: one for each board, and spare ones for "
            "sessions that fail after Provisioning Data"
        )
        yield "no board becomes a provisioner, so there is no tree, no list and nothing to close"
    else:
        yield _primaries(forecast)
        yield (
            "node_addr_cnt 1: the proxy of a Primary comes back whatever happens; with other "
            "values it waits for children or reports that may never come"
        )
        yield _ranges(forecast)
        yield from _limits(forecast)
    yield f"expected time {shown(forecast.expected)}: {forecast.expected.source}"


def shown(expected: Expected) -> str:
    """Return the time as people write it."""
    low, high = round(expected.low_s), round(expected.high_s)
    return f"{low} s" if low == high else f"{low}..{high} s"


def _method(forecast: Forecast) -> str:
    settings = forecast.settings
    fast = shown(forecast.fast)
    direct = f"{shown(forecast.direct)} with {_count(settings.links, 'link')}"
    if settings.method is not Method.AUTO:
        return (
            f"method {forecast.method}: as told; fast is expected to take {fast}, direct {direct} "
            "and every board in the gateway's own reach"
        )
    if forecast.boards > forecast.heard:
        return (
            f"method fast: {forecast.heard} of {forecast.boards} boards are heard, and only other "
            "boards can reach the rest"
        )
    if forecast.method is Method.DIRECT:
        return f"method direct: {direct}, fast would take {fast}"
    return f"method fast: {fast}, direct would take {direct}"


def _primaries(forecast: Forecast) -> str:
    settings, boards, count = forecast.settings, forecast.boards, len(forecast.branches)
    told = settings.primaries
    primaries = "1 Primary" if count == 1 else f"{count} Primaries"
    if told is not None and told != count:
        return (
            f"{primaries}: {told} were asked for, for {_count(boards, 'board')} and "
            f"{_count(settings.links, 'link')}"
        )
    if told is not None:
        return f"{primaries}: as told; {choose_primaries(boards, settings.links)} would be chosen"
    if count == 1 and choose_primaries(boards, 2) > 1:
        return f"{primaries}: each needs a link while addresses are collected, and there is one"
    if count == 1:
        return f"{primaries}: two are faster and steadier only from about 20 boards on"
    return (
        f"{primaries}: 20 boards were provisioned in 17..21 s by two, in 25..39 s by one (measured)"
    )


def _ranges(forecast: Forecast) -> str:
    share = forecast.branches[0].plan.share
    sizes = f"{share.size} addresses for each Primary, which serve {share.capacity} boards at most"
    if forecast.ranges is Ranges.RESILIENT:
        return (
            f"ranges are resilient: {sizes}; a child that is left without AppKey never gets its "
            "share, and nobody misses it"
        )
    return (
        f"ranges are tight, because no larger block is free: {sizes}; a child that is left without "
        "AppKey may cost other boards their address"
    )


def _limits(forecast: Forecast) -> Iterator[str]:
    branches = forecast.branches
    longest = max(branches, key=lambda branch: branch.list_entries)
    yield _list(longest)
    sources = max(branch.sources for branch in branches)
    if sources > REPLAY_LIST_ENTRIES:
        yield (
            f"a Primary would hear {sources} sources, and its replay list holds "
            f"{REPLAY_LIST_ENTRIES}: reports of the others are ignored, their addresses are probed"
        )
    else:
        yield f"{sources} of {REPLAY_LIST_ENTRIES} sources fill the replay list of a Primary"
    reports = sum(branch.reports for branch in branches)
    if reports:
        yield (
            f"{reports} reports of up to {REPORT_MAX_ADDRESSES} addresses: each leaves 5 s after "
            "the last child of its sender"
        )
        yield (
            "every Temporary Provisioner must hear its Primary directly: reports have TTL 0, and "
            "nobody relays them"
        )
    plain = sum(branch.plain_nodes for branch in branches)
    if plain:
        yield (
            f"{plain} boards get no share: they provision nobody, and their GATT proxies stay on "
            "the air"
        )
    elif forecast.boards > len(branches):
        yield "every board gets a share, so only the Primaries have a GATT proxy afterwards"


def _list(branch: Branch) -> str:
    entries, most = branch.list_entries, branch.most_entries
    if branch.reading is Reading.PROBING:
        sentence = (
            f"a list of {entries} entries is not read, since more than 50 kill a NimBLE Primary: "
            "its boards are found by asking the predicted addresses"
        )
        if entries > LIST_CAPACITY:
            sentence += f"; the firmware's list ends at {LIST_CAPACITY} anyway"
        return sentence
    sentence = f"a list of {entries} entries can be read: up to {SAFE_LIST_ENTRIES} are safe"
    if most > entries:
        sentence += (
            "; boards join whom they hear first (13 and 5 were measured with two Primaries), so it "
            f"may have up to {most}"
        )
    return sentence


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
