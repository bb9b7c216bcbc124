"""Why a run is planned as it is, and what to expect of it, in sentences; pure."""

from __future__ import annotations

from collections.abc import Iterator

from fastprovd.campaign.forecast import REPLAY_LIST_ENTRIES, Branch, Forecast, Ranges, Reading
from fastprovd.campaign.planner import (
    EDGE_PROXIES,
    LIST_CAPACITY,
    SAFE_LIST_ENTRIES,
    choose_primaries,
    wants_spare,
)
from fastprovd.campaign.settings import Method
from fastprovd.campaign.times import shown
from fastprovd.mesh.models.fast_provisioning import REPORT_MAX_ADDRESSES


def reasons(forecast: Forecast) -> Iterator[str]:
    """Yield the reasons, one sentence each."""
    yield _method(forecast)
    if forecast.method is Method.DIRECT:
        yield from _own(forecast)
    else:
        yield _primaries(forecast)
        yield from _spare(forecast)
    if forecast.branches:
        yield (
            "node_addr_cnt 1: the proxy of a Primary comes back whatever happens; with other "
            "values it waits for children or reports that may never come"
        )
        yield _ranges(forecast)
        yield from _limits(forecast)
        if forecast.settings.close != "leave_open":
            yield (
                "boards that have no address in the end and are still on the air are provisioned "
                "by the gateway itself"
            )
    yield f"expected time {shown(forecast.expected)}: {forecast.expected.source}"


def _method(forecast: Forecast) -> str:
    settings = forecast.settings
    fast = shown(forecast.fast)
    direct = f"{shown(forecast.direct)} with {_count(settings.links, 'link')}"
    if settings.method is Method.FAST and forecast.unheard:
        return (
            f"method fast: as told; {_are(forecast.unheard)} not heard, and boards provision whom "
            "they hear"
        )
    if settings.method is not Method.AUTO:
        return (
            f"method {forecast.method}: as told; fast is expected to take {fast}, direct {direct} "
            "and every board in the gateway's own reach"
        )
    heard = f" for the {_count(forecast.heard, 'board')} heard" if forecast.unheard else ""
    if forecast.method is Method.DIRECT:
        return f"method direct: {direct}{heard}, fast would take {fast}"
    return f"method fast: {fast}{heard}, direct would take {direct}"


# The boards that we provision ourselves


def _own(forecast: Forecast) -> Iterator[str]:
    own, unheard = forecast.own, forecast.unheard
    if own is not None:
        yield (
            f"{own.last - own.first + 1} addresses for the "
            f"{_count(own.boards, 'board')} that the gateway provisions, taken as their sessions "
            "need them; one that fails after Provisioning Data costs another"
        )
    if not unheard:
        yield "no board becomes a provisioner, so there is no tree, no list and nothing to close"
    elif forecast.branches:
        yield _reach_out(forecast)
    elif forecast.settings.method is Method.DIRECT:
        yield (
            f"{_are(unheard)} not heard and will be missing: with method direct nobody else "
            "provisions them"
        )
    else:
        yield (
            f"{_are(unheard)} not heard and will be missing: too few addresses are left for nodes "
            "of ours to hand out"
        )


def _reach_out(forecast: Forecast) -> str:
    links, count = forecast.settings.links, len(forecast.branches)
    if count == forecast.heard:
        nodes = "our only node" if count == 1 else f"all {count} nodes of ours"
    else:
        quietest = "the quietest" if count == 1 else f"the {count} quietest"
        nodes = f"{quietest} of our nodes, most likely the nearest to them,"
        nodes += f" (no more than {_count(links, 'link')})" if count < EDGE_PROXIES else ""
    made = "is made a Primary" if count == 1 else "are made Primaries"
    return f"{_are(forecast.unheard)} not heard: {nodes} {made} for them"


# Primaries that begin a run


def _primaries(forecast: Forecast) -> str:
    settings, boards, count = forecast.settings, forecast.boards, len(forecast.branches)
    told, primaries = settings.primaries, _primaries_word(count)
    wanted = choose_primaries(boards, settings.links) if told is None else told
    if told is not None and told != count:
        return (
            f"{primaries}: {told} were asked for, for {_count(forecast.heard, 'board')} in reach "
            f"and {_count(settings.links, 'link')}"
        )
    if told is not None:
        return f"{primaries}: as told; {choose_primaries(boards, settings.links)} would be chosen"
    if count < wanted:
        return f"{primaries}: {wanted} would be faster, but only {forecast.heard} is heard"
    if count == 1 and choose_primaries(boards, 2) > 1:
        return f"{primaries}: each needs a link while addresses are collected, and there is one"
    if count == 1:
        return f"{primaries}: two are faster and steadier only from about 20 boards on"
    return (
        f"{primaries}: 20 boards were provisioned in 17..21 s by two, in 25..39 s by one (measured)"
    )


def _spare(forecast: Forecast) -> Iterator[str]:
    primaries = len(forecast.branches)
    if forecast.spare is not None:
        yield (
            "a spare plain node is provisioned before the start, which takes about 2 s: its proxy "
            "reaches every node, and can wake a Primary that stays silent"
        )
    elif forecast.heard > primaries and wants_spare(
        forecast.boards, primaries, forecast.settings.links
    ):
        yield "no spare plain node: no address is left for one"


def _ranges(forecast: Forecast) -> str:
    share = forecast.branches[0].plan.share
    sizes = f"{share.size} addresses for each Primary, which serve {share.capacity} boards at most"
    if forecast.ranges is Ranges.RESILIENT:
        return (
            f"ranges are resilient: {sizes}; a child that is left without AppKey never gets its "
            "share, and nobody misses it"
        )
    if len({branch.plan.share.size for branch in forecast.branches}) > 1:
        smallest = min(branch.plan.share.size for branch in forecast.branches)
        sizes = f"{smallest} addresses and more for each Primary"
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
            f"{_count(reports, 'report')} of up to {REPORT_MAX_ADDRESSES} addresses: each leaves "
            "5 s after the last child of its sender"
        )
        yield (
            "every Temporary Provisioner must hear its Primary directly: reports have TTL 0, and "
            "nobody relays them"
        )
    yield from _proxies(forecast)


def _proxies(forecast: Forecast) -> Iterator[str]:
    plain = sum(branch.plain_nodes for branch in forecast.branches)
    if plain:
        yield (
            f"{plain} boards get no share: they provision nobody, and their GATT proxies stay on "
            "the air"
        )
    elif sum(len(branch.nodes) - 1 for branch in forecast.branches):
        primaries = "the Primary" if len(forecast.branches) == 1 else "the Primaries"
        others = " and the spare" if forecast.spare is not None else ""
        if forecast.method is Method.DIRECT:
            others = " and some of our own nodes"
        yield (
            f"every board below {primaries} gets a share and provisions others; {primaries}"
            f"{others} keep a GATT proxy"
        )


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
    sentence = f"a list of {_entries(entries)} can be read: up to {SAFE_LIST_ENTRIES} are safe"
    if most > entries:
        sentence += (
            "; boards join whom they hear first (13 and 5 were measured with two Primaries), so it "
            f"may have up to {most}"
        )
    return sentence


def _entries(number: int) -> str:
    return "1 entry" if number == 1 else f"{number} entries"


def _primaries_word(number: int) -> str:
    return "1 Primary" if number == 1 else f"{number} Primaries"


def _are(number: int) -> str:
    return "1 board is" if number == 1 else f"{number} boards are"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
