"""What the command line does itself, without a daemon: one run, a look at the air, single nodes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, Final, TextIO

from fastprovd.campaign.forecast import forecast
from fastprovd.campaign.inventory import Inventory
from fastprovd.campaign.memberships import all_memberships
from fastprovd.campaign.ports import Bearer
from fastprovd.campaign.settings import RunSettings
from fastprovd.campaign.tasks import background
from fastprovd.clock import SystemClock
from fastprovd.config import Config
from fastprovd.config_rules import broken_rules
from fastprovd.console import (
    Reporter,
    membership_lines,
    node_lines,
    step_line,
    step_to_json,
    switched_lines,
    write_line,
)
from fastprovd.daemon import hurry_later, on_signals, published
from fastprovd.errors import ConfigError, LocalProtocolError, NoRun, StoreError
from fastprovd.gateway import Gateway, open_gateway
from fastprovd.mesh.beacons import RSSI_UNKNOWN, Advertisement, NetworkIdentity, UnprovisionedDevice
from fastprovd.plan_text import plan_lines, plan_to_json
from fastprovd.publish.messages import groups_to_json, node_to_json
from fastprovd.radio import Radio, bluetooth
from fastprovd.records import AddressRange, Membership, Node, Run, Step
from fastprovd.run_settings import run_settings
from fastprovd.store.database import DATABASE_NAME
from fastprovd.store.state import StateStore

# The keys that options of commands stand for.
_KEYS: Final = {
    "method": "run.method",
    "expected": "run.expected",
    "primaries": "run.primaries",
    "links": "bluetooth.max_links",
    "unicast_min": "mesh.unicast_min",
    "unicast_max": "mesh.unicast_max",
}
_TICK_S: Final = 0.5  # of the loop's clock; a person sees four of them in a second of the demo


@asynccontextmanager
async def open_published(
    config: Config, *, radio: Radio | None = None, **more: Any
) -> AsyncIterator[Gateway]:
    """Open the gateway and publish what it does; raises ConfigError, StoreError."""
    clock = SystemClock()
    async with (
        open_gateway(config, radio=radio, clock=clock, **more) as gateway,
        published(gateway, clock),
    ):
        yield gateway


async def one_run(
    gateway: Gateway, settings: RunSettings, reporter: Reporter, signals: ExitStack
) -> tuple[Run, list[Node]]:
    """Drive one run to its end and return it with its nodes; SIGINT and SIGTERM stop it.

    Once it has ended they change nothing any more until `signals` is closed: the program is about
    to end, and says how the run did. One that an earlier process left unfinished is done in its
    place.

    Raises:
        StoreError: the state can not be kept.
    """
    campaign = gateway.prepare_resumption() or gateway.prepare_run(settings)
    gateway.audiences.members.append(reporter)

    def stop() -> None:
        campaign.stop()
        hurry_later(gateway)

    signals.enter_context(on_signals(stop))
    async with background(_tick(reporter), "tick"):
        run = await gateway.execute(campaign)
    newest, nodes = await gateway.last_run()
    is_kept = newest is not None and newest.run_id == run.run_id
    return run, nodes if is_kept else []


async def provision(
    config: Config,
    expected: int,
    reporter: Reporter,
    radio: Radio | None = None,
    method: str | None = None,
) -> Run:
    """Do one run with the configured adapter; raises ConfigError, StoreError."""
    config = _tried(config, expected=expected, method=method)
    with ExitStack() as signals:
        async with open_published(config, radio=radio) as gateway:
            run, nodes = await one_run(gateway, gateway.settings(), reporter, signals)
            reporter.finished(run, nodes)
    return run


async def set_onoff(
    config: Config, address: int, onoff: bool, stream: TextIO, radio: Radio | None = None
) -> bool:
    """Switch a node, a group or all, and return whether all confirmed it.

    Raises BearerError, ResponseTimeout, UnknownNode, UnknownGroup, NoRun, StoreError.
    """
    async with open_gateway(config, radio=radio) as gateway:
        switched = await gateway.controls.set_onoff(address, onoff)
    for line in switched_lines(switched):
        write_line(stream, line)
    return not switched.unconfirmed


async def change_group(
    config: Config,
    group: int,
    addresses: Sequence[int],
    add: bool,
    stream: TextIO,
    radio: Radio | None = None,
) -> bool:
    """Add nodes to a group or remove them, and return whether all have proven it.

    Raises BearerError, UnknownNode, GroupsFull, StoreError.
    """
    async with open_gateway(config, radio=radio) as gateway:
        changed = await gateway.controls.change_group(group, addresses, add=add)
    for line in membership_lines(changed):
        write_line(stream, line)
    return all(membership.proof is not None for membership in changed)


def list_groups(config: Config, stream: TextIO, *, as_json: bool) -> None:
    """Write who is in which group; raises StoreError."""
    memberships: Sequence[Membership] = ()
    if (config.state.directory / DATABASE_NAME).exists():
        with StateStore(config.state.directory) as store:
            known = all_memberships(store.nodes(), store.runs(), store.memberships())
            memberships = [membership for membership in known if not membership.is_over]
    if as_json:
        for group in groups_to_json(memberships):
            write_line(stream, json.dumps(group))
    elif memberships:
        for line in membership_lines(memberships):
            write_line(stream, line)
    else:
        write_line(stream, f"No group is known in {config.state.directory}.")


def list_nodes(config: Config, stream: TextIO, *, as_json: bool) -> None:
    """Write every node that is known; raises StoreError."""
    nodes: Sequence[Node] = ()
    if (config.state.directory / DATABASE_NAME).exists():
        with StateStore(config.state.directory) as store:
            nodes = store.nodes()
    if as_json:
        for node in nodes:
            write_line(stream, json.dumps(node_to_json(node)))
    elif nodes:
        for line in node_lines(nodes):
            write_line(stream, line)
    else:
        write_line(stream, f"No node is known in {config.state.directory}.")


def show_journal(config: Config, run_id: str | None, stream: TextIO, *, as_json: bool) -> None:
    """Write the journal of a run, the newest unless told otherwise; raises NoRun, StoreError."""
    steps: Sequence[Step] = ()
    if (config.state.directory / DATABASE_NAME).exists():
        with StateStore(config.state.directory) as store:
            newest = run_id or next((run.run_id for run in store.runs()), None)
            steps = () if newest is None else store.steps(newest)
    if not steps:
        raise NoRun(f"no journal of {run_id or 'any run'} is kept in {config.state.directory}")
    for step in steps:
        write_line(stream, json.dumps(step_to_json(step)) if as_json else step_line(step))


def adopt_state(config: Config, stream: TextIO) -> None:
    """Take a state directory that was moved or restored into use; raises StoreError."""
    directory = config.state.directory
    if not (directory / DATABASE_NAME).exists():
        raise StoreError(f"{directory} holds no {DATABASE_NAME} that could be adopted")
    with StateStore(directory, adopt=True):
        write_line(
            stream,
            f"{directory} is adopted; SEQ goes on far ahead. If it is older than the network, "
            "addresses can be handed out twice: then move it away and begin a new network.",
        )


def show_plan(
    config: Config, boards: int, stream: TextIO, *, as_json: bool, **overrides: Any
) -> None:
    """Write what a run over `boards` boards comes to, without state directory or radio.

    Addresses that an existing state directory has used are not planned again.

    Raises:
        ConfigError: they break a rule of the configuration, or too few addresses are left.
        StoreError: the state directory can not be read.
    """
    tried = _tried(config, **overrides)
    taken: Sequence[AddressRange] = ()
    if (config.state.directory / DATABASE_NAME).exists():
        with StateStore(config.state.directory) as store:
            taken = store.reserved_addresses()
    try:
        planned = forecast(run_settings(tried), boards, taken)
    except LocalProtocolError as error:
        raise ConfigError([str(error)]) from error
    if as_json:
        write_line(stream, json.dumps(plan_to_json(planned)))
        return
    for line in plan_lines(planned):
        write_line(stream, line)


def _tried(config: Config, **values: Any) -> Config:
    """Return the configuration with values that the command line gives; `None` is none.

    Raises:
        ConfigError: a rule of the configuration is broken.
    """
    for name, value in values.items():
        if value is not None:
            table, _, key = _KEYS[name].partition(".")
            config = replace(config, **{table: replace(getattr(config, table), **{key: value})})
    if problems := [rule.sentence({}) for rule in broken_rules(config)]:
        raise ConfigError(problems)
    return config


async def scan(config: Config, seconds: float, stream: TextIO, radio: Radio | None = None) -> None:
    """Listen and write what is on the air; raises BluetoothUnavailable."""
    radio = radio or bluetooth(config)
    heard: dict[str, Advertisement] = {}
    async with radio:
        await _listen(radio, seconds, heard)
    inventory = Inventory(config.mesh.match, config.mesh.allow, config.mesh.deny)
    boards, strangers, proxies = [], [], []
    for advertisement in heard.values():
        data = advertisement.data
        if not isinstance(data, UnprovisionedDevice):
            shown = (
                f"Network ID {data.network_id.hex()}"
                if isinstance(data, NetworkIdentity)
                else "Node Identity"
            )
            proxies.append(_line(advertisement, shown))
        elif inventory.is_ours(data.uuid):
            boards.append(_line(advertisement, data.uuid.hex()))
        else:
            strangers.append(_line(advertisement, data.uuid.hex()))
    match = config.mesh.match.hex()
    for title, lines in (
        (f"boards to provision (UUID {match}...)", boards),
        ("other unprovisioned devices", strangers),
        ("proxies of mesh networks", proxies),
    ):
        write_line(stream, f"{len(lines)} {title}")
        for line in lines:
            write_line(stream, line)


async def _listen(radio: Bearer, seconds: float, heard: dict[str, Advertisement]) -> None:
    async with radio.scan() as scanning:
        try:
            async with asyncio.timeout(seconds):
                async for advertisement in scanning:
                    heard[advertisement.device_address] = advertisement
        except TimeoutError:
            return


def _line(advertisement: Advertisement, shown: str) -> str:
    is_known = advertisement.rssi_dbm != RSSI_UNKNOWN
    rssi = f"{advertisement.rssi_dbm:4}" if is_known else "   ?"
    return f"  {advertisement.device_address}  {rssi} dBm  {shown}"


async def _tick(reporter: Reporter) -> None:
    while True:
        await asyncio.sleep(_TICK_S)
        reporter.tick()
