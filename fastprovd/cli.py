"""The command line: subcommands, sentences on standard error, exit codes of sysexits.h."""

from __future__ import annotations

import argparse
import asyncio
import atexit
import json
import os
import secrets
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from enum import IntEnum
from pathlib import Path
from typing import Final, NoReturn, TextIO

import structlog

from fastprovd import __version__, config_text, core_files, logs
from fastprovd.cli_types import broker, count, group_address, node_address, number, switchable
from fastprovd.config import DEFAULT_PATH, MAX_LINKS, Config, load
from fastprovd.errors import (
    AccessError,
    BearerError,
    BrokerMismatch,
    BrokerUnavailable,
    ConfigError,
    CopiedStore,
    CorruptStore,
    GroupsFull,
    NoRun,
    SchemaTooNew,
    StoreError,
    StoreInUse,
    UnknownGroup,
    UnknownNode,
)
from fastprovd.lasting import lasting
from fastprovd.records import RunState

log = structlog.get_logger(__name__)


class Exit(IntEnum):
    """Exit codes, as in sysexits.h; `MEANINGS` says when."""

    OK = 0
    USAGE = 64
    DATA = 65
    UNAVAILABLE = 69
    INTERNAL = 70
    CANT_CREATE = 73
    IO = 74
    TRY_AGAIN = 75
    CONFIG = 78


MEANINGS: Final = {
    Exit.OK: "success; for a run: done, every board is proven",
    Exit.USAGE: "the command line is wrong, or names a node or group that is not known or is full",
    Exit.DATA: "the state directory is damaged, is a copy, or was written by a newer fastprovd",
    Exit.UNAVAILABLE: "no adapter, broker or answer of each node; for a run: it failed",
    Exit.INTERNAL: "a fault of fastprovd itself; --debug shows where",
    Exit.CANT_CREATE: "a file or directory can not be made",
    Exit.IO: "the state can not be read or written",
    Exit.TRY_AGAIN: "the run ended partial, stopped or interrupted; or another fastprovd is at it",
    Exit.CONFIG: "the configuration is wrong",
}
RUN_EXITS: Final = {
    RunState.DONE: Exit.OK,
    RunState.PARTIAL: Exit.TRY_AGAIN,
    RunState.STOPPED: Exit.TRY_AGAIN,
    RunState.INTERRUPTED: Exit.TRY_AGAIN,
    RunState.FAILED: Exit.UNAVAILABLE,
}
# The first class that fits names the exit.
_ERROR_EXITS: Final[tuple[tuple[type[Exception], Exit], ...]] = (
    (ConfigError, Exit.CONFIG),
    (UnknownNode, Exit.USAGE),
    (UnknownGroup, Exit.USAGE),
    (GroupsFull, Exit.USAGE),
    (NoRun, Exit.USAGE),
    (StoreInUse, Exit.TRY_AGAIN),
    (SchemaTooNew, Exit.DATA),
    (CorruptStore, Exit.DATA),
    (CopiedStore, Exit.DATA),
    (StoreError, Exit.IO),
    (BearerError, Exit.UNAVAILABLE),
    (AccessError, Exit.UNAVAILABLE),
    (BrokerUnavailable, Exit.UNAVAILABLE),
    (BrokerMismatch, Exit.UNAVAILABLE),
    (PermissionError, Exit.CANT_CREATE),
    (OSError, Exit.IO),
)
_ENDS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_MAX_BOARDS: Final = 300
_MAX_PLANNED: Final = 10_000
_MAX_SPEED: Final = 1000.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code."""
    options = _parser().parse_args(arguments)
    core_files.forbid()
    is_program = arguments is None
    if is_program:
        # Python gives the signals back before it ends, and all that is said last is done by then.
        atexit.register(_ignore_signals)
    before = {each: signal.getsignal(each) for each in _ENDS}
    _end_at_once(Exit.OK if options.command is _run else Exit.TRY_AGAIN, options.command)
    try:
        with redirect_stderr(lasting(sys.stderr)):
            code = _done(options)
        _end_at_once(code, options.command)
        return code
    finally:
        if not is_program and _is_main_thread():
            for each, handler in before.items():
                signal.signal(each, handler)


def _done(options: argparse.Namespace) -> Exit:
    try:
        return Exit(options.command(options))
    except KeyboardInterrupt:
        return Exit.TRY_AGAIN
    except Exception as error:  # noqa: BLE001 - the edge of the program
        return _report(error, options.debug)


def _end_at_once(code: Exit, command: Callable[[argparse.Namespace], int]) -> None:
    """Have a signal end the program, where nothing has begun yet or all is over.

    What the handler raised could get lost in a callback of Python's own, while it imports. SIGHUP
    never ends the service.
    """
    if _is_main_thread():
        for each in _ENDS:
            signal.signal(each, lambda *_: os._exit(code))
        if command is _run:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _ignore_signals() -> None:
    for each in _ENDS:
        signal.signal(each, signal.SIG_IGN)


def _end_in_order() -> None:
    """Let the other two ways to end a program of a terminal do what Ctrl-C does.

    asyncio then cancels what is going on, and what belongs to it ends too: links, a broker.
    """
    if _is_main_thread():
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for each in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(each, lambda *_: signal.raise_signal(signal.SIGINT))


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _report(error: Exception, debug: bool) -> Exit:
    if debug:
        traceback.print_exception(error)
    for cls, code in _ERROR_EXITS:
        if isinstance(error, cls):
            for line in str(error).splitlines():
                _complain(line)
            return code
    what = f"internal error: {type(error).__name__}"
    advice = "" if debug else "; run the same command with --debug to see where"
    _complain(f"{what}{advice}")
    return Exit.INTERNAL


def _complain(sentence: str) -> None:
    sys.stderr.write(f"fastprovd: {sentence}\n")


def _for_a_reader(write: Callable[[TextIO], object]) -> Exit:
    """Write what nothing depends on; whoever reads it may take his time, or only the begin."""
    if sys.stdout is None:
        return Exit.OK
    try:
        write(sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        # Python would flush what is left, and complain, at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.OK


def _lasting_output(*, as_json: bool = False) -> TextIO:
    """Return standard output for a command that does something while or before it writes."""
    return lasting(sys.stdout, _lines_missing) if as_json else lasting(sys.stdout)


def _lines_missing(lines: int) -> str:
    return json.dumps({"event": "lines_missing", "lines": lines})


# Commands; what they need is imported by each, so that --help is quick


def _run(options: argparse.Namespace) -> int:
    from fastprovd.daemon import run_daemon

    config = load(options.config)
    logs.configure("debug" if options.debug else config.log.level, config.log.format)
    _log_doubts(config)
    asyncio.run(run_daemon(config))
    return Exit.OK


def _scan(options: argparse.Namespace) -> int:
    from fastprovd.foreground import scan

    config = _foreground(options)
    asyncio.run(scan(config, options.seconds, _lasting_output()))
    return Exit.OK


def _provision(options: argparse.Namespace) -> int:
    from fastprovd.foreground import provision
    from fastprovd.progress import reporting

    config = _foreground(options)
    output = _lasting_output(as_json=options.json)
    with reporting(output, as_json=options.json) as reporter:
        run = asyncio.run(provision(config, options.expected, reporter, method=options.method))
    return RUN_EXITS[run.state]


def _plan(options: argparse.Namespace) -> int:
    from fastprovd.foreground import show_plan

    config = _foreground(options)
    return _for_a_reader(
        lambda out: show_plan(
            config,
            options.boards,
            out,
            as_json=options.json,
            expected=options.expected,
            method=options.method,
            primaries=options.primaries,
            links=options.links,
            unicast_min=options.unicast_min,
            unicast_max=options.unicast_max,
        )
    )


def _nodes(options: argparse.Namespace) -> int:
    from fastprovd.foreground import list_nodes

    config = _foreground(options)
    return _for_a_reader(lambda out: list_nodes(config, out, as_json=options.json))


def _onoff(options: argparse.Namespace) -> int:
    from fastprovd.foreground import set_onoff

    config = _foreground(options)
    done = set_onoff(config, options.address, options.state == "on", _lasting_output())
    return Exit.OK if asyncio.run(done) else Exit.UNAVAILABLE


def _group(options: argparse.Namespace) -> int:
    from fastprovd.foreground import change_group

    config = _foreground(options)
    add = options.change == "add"
    done = change_group(config, options.group, options.addresses, add, _lasting_output())
    return Exit.OK if asyncio.run(done) else Exit.UNAVAILABLE


def _groups(options: argparse.Namespace) -> int:
    from fastprovd.foreground import list_groups

    config = _foreground(options)
    return _for_a_reader(lambda out: list_groups(config, out, as_json=options.json))


def _journal(options: argparse.Namespace) -> int:
    from fastprovd.foreground import show_journal

    config = _foreground(options)
    return _for_a_reader(
        lambda out: show_journal(config, options.run_id, out, as_json=options.json)
    )


def _state(options: argparse.Namespace) -> int:
    from fastprovd.foreground import adopt_state

    adopt_state(_foreground(options), _lasting_output())
    return Exit.OK


def _check_config(options: argparse.Namespace) -> int:
    from fastprovd.daemon import broker_settings

    config = load(options.config)
    if config.mqtt.enabled:  # else nobody reads the files that it names
        broker_settings(config)
    for doubt in config.doubts:
        _complain(f"warning: {doubt}")
    return _for_a_reader(lambda out: out.write(config_text.format_effective(config)))


def _demo(options: argparse.Namespace) -> int:
    from fastprovd.demo import HOSTS, DemoOptions, run_demo

    _end_in_order()
    logs.configure("debug" if options.debug else "error", "console")
    seed = secrets.randbelow(10_000) if options.seed is None else options.seed
    demo = DemoOptions(
        boards=options.boards,
        seed=seed,
        speed=options.speed,
        broker=options.broker,
        host=HOSTS[options.host],
        flaws=options.flaws == "on",
        method=options.method,
        air=options.air,
    )
    output = _lasting_output(as_json=options.json)
    return RUN_EXITS[run_demo(demo, output, as_json=options.json).state]


def _foreground(options: argparse.Namespace) -> Config:
    _end_in_order()
    logs.configure("debug" if options.debug else "warning", "console")
    config = load(options.config)
    _log_doubts(config)
    return config


def _log_doubts(config: Config) -> None:
    for doubt in config.doubts:
        log.warning("config_doubtful", reason=doubt)


# The parser


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(Exit.USAGE, f"fastprovd: {message}; see {self.prog} --help\n")


def _parser() -> argparse.ArgumentParser:
    common = _Parser(add_help=False)
    common.add_argument("--debug", action="store_true", help="show debug log and tracebacks")
    configured = _Parser(add_help=False)
    configured.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help=f"configuration file (default: {DEFAULT_PATH} if it exists)",
    )
    json_lines = _Parser(add_help=False)
    json_lines.add_argument("--json", action="store_true", help="print one JSON object per line")

    parser = _Parser(
        prog="fastprovd",
        description="Top Provisioner for Espressif's ESP-BLE-MESH fast provisioning demo.",
        epilog=_exit_table(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"fastprovd {__version__}")
    commands = parser.add_subparsers(metavar="COMMAND", required=True, parser_class=_Parser)

    def add(
        name: str,
        command: Callable[[argparse.Namespace], int],
        text: str,
        *parents: _Parser,
    ) -> argparse.ArgumentParser:
        made = commands.add_parser(
            name, help=text, description=f"{text}.", parents=[common, *parents]
        )
        made.set_defaults(command=command)
        return made

    add("run", _run, "serve as a daemon; runs are started over MQTT", configured)
    scan = add("scan", _scan, "tell what is on the air", configured)
    scan.add_argument(
        "--seconds", type=number(0.1, 3600), default=5.0, metavar="S", help="default: 5"
    )
    provision = add("provision", _provision, "do one run in the foreground", configured, json_lines)
    provision.add_argument(
        "--expected",
        type=count(32767),
        required=True,
        metavar="N",
        help="number of boards, the Primary Provisioner too",
    )
    _add_method(provision, None, "the configuration's")
    _add_plan_options(
        add("plan", _plan, "tell what a run will come to, and why", configured, json_lines)
    )
    add("nodes", _nodes, "list the nodes that are known", configured, json_lines)
    onoff = add("onoff", _onoff, "switch a node, a group of nodes, or all", configured)
    onoff.add_argument(
        "address",
        type=switchable,
        metavar="ADDR|GROUP|all",
        help="such as 0x0006, 0xc000 or all; a board that never got a message of this kind stops "
        "provisioning others 10 s later",
    )
    onoff.add_argument("state", choices=("on", "off"))
    add("groups", _groups, "list who is in which group", configured, json_lines)
    group = add("group", _group, "add nodes to a group, or remove them", configured)
    group.add_argument("change", choices=("add", "remove"))
    group.add_argument("group", type=group_address, metavar="GROUP", help="such as 0xc010")
    group.add_argument(
        "addresses", type=node_address, nargs="+", metavar="ADDR", help="such as 0x0006"
    )
    journal = add("journal", _journal, "show what a run did, step by step", configured, json_lines)
    journal.add_argument("run_id", nargs="?", metavar="RUN_ID", help="default: the newest run")
    state = add("state", _state, "adopt a state directory that was moved or restored", configured)
    state.add_argument("what", choices=("adopt",), help="only if no other gateway uses it")
    add("check-config", _check_config, "check the configuration and show it", configured)
    _add_demo_options(add("demo", _demo, "provision virtual boards before your eyes", json_lines))
    return parser


def _add_method(command: argparse.ArgumentParser, default: str | None, shown: str) -> None:
    command.add_argument(
        "--method",
        choices=("fast", "direct", "auto"),
        default=default,
        help="fast: boards provision each other; direct: the gateway provisions each board itself; "
        f"auto: whatever is faster (default: {shown})",
    )


def _add_plan_options(plan: argparse.ArgumentParser) -> None:
    plan.add_argument(
        "--boards",
        type=count(_MAX_PLANNED),
        required=True,
        metavar="N",
        help=f"number of boards that are heard, the Primaries too, 1..{_MAX_PLANNED}",
    )
    plan.add_argument(
        "--expected",
        type=count(_MAX_PLANNED),
        metavar="N",
        help="number of boards in all, if more than are heard (default: the configuration's)",
    )
    _add_method(plan, None, "the configuration's")
    for name, metavar, text in (
        ("primaries", "K", "number of Primary Provisioners"),
        ("links", "L", "GATT links at once"),
    ):
        plan.add_argument(
            f"--{name}",
            type=count(MAX_LINKS),
            metavar=metavar,
            help=f"{text}, 1..{MAX_LINKS} (default: the configuration's)",
        )
    for name, text in (("min", "first"), ("max", "last")):
        plan.add_argument(
            f"--unicast-{name}",
            type=node_address,
            metavar="ADDR",
            help=f"{text} address that boards may get (default: the configuration's)",
        )


def _add_demo_options(demo: argparse.ArgumentParser) -> None:
    demo.add_argument(
        "--boards",
        type=count(_MAX_BOARDS),
        default=20,
        metavar="N",
        help=f"number of boards, the Primary Provisioner too, 1..{_MAX_BOARDS} (default: 20)",
    )
    _add_method(demo, "fast", "fast")
    demo.add_argument("--seed", type=int, metavar="N", help="the same seed gives the same boards")
    demo.add_argument(
        "--speed",
        type=number(0.1, _MAX_SPEED),
        default=5.0,
        metavar="X",
        help="times real time; 1 is real time (default: 5)",
    )
    demo.add_argument(
        "--broker",
        type=broker,
        metavar="URL",
        help="such as mqtt://localhost:1883 (default: start one for the demo)",
    )
    demo.add_argument(
        "--host",
        choices=("bluedroid", "nimble"),
        default="bluedroid",
        help="Bluetooth host of the boards' firmware (default: bluedroid)",
    )
    demo.add_argument(
        "--flaws",
        choices=("on", "off"),
        default="off",
        help="let the boards have the faults of real firmware (default: off)",
    )
    demo.add_argument(
        "--air",
        choices=("auto", "ideal", "collisions"),
        default="auto",
        help="whether transmissions collide; auto: from 20 boards on (default: auto)",
    )


def _exit_table() -> str:
    lines = [f"  {code.value:>3}  {meaning}" for code, meaning in MEANINGS.items()]
    return "\n".join(["exit codes:", *lines])
