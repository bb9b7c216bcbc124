"""The README tells the truth: what of it can be checked is derived from the code."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.verdict import FORMER, MOST_NAMED, bounded, missing_boards
from fastprovd.checking import either, field_types, format_value, optional
from fastprovd.cli import MEANINGS, main
from fastprovd.config import Config
from fastprovd.emulator.hosts import Flaws
from fastprovd.publish.messages import (
    COMMANDS,
    ErrorCode,
    GatewayInfo,
    Message,
    Topics,
    event_message,
    groups_message,
    info_message,
    node_message,
    nodes_message,
    run_message,
    state_message,
)
from fastprovd.records import Membership, MissingBoard, Node, NodeRole, Proof, Run, RunState
from tests.support.contract.table import DOORS, table

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
pytestmark = pytest.mark.usefixtures("restored_logging")
NOW = datetime(2026, 11, 22, 11, 26, 1, tzinfo=UTC)
TOPICS = Topics("base")


def subcommands(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Return the subcommands that `fastprovd --help` names."""
    with pytest.raises(SystemExit):
        main(["--help"])
    return set(re.findall(r"^    ([a-z-]+)", capsys.readouterr().out, re.MULTILINE))


def command_lines() -> set[str]:
    """Return what follows `fastprovd` in every code span and shell or text block."""
    blocks = re.findall(r"^```(?:sh|text)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    prose = re.sub(r"^```.*?^```", "", README, flags=re.MULTILINE | re.DOTALL)
    code = "\n".join([*blocks, *re.findall(r"`([^`\n]+)`", prose)])
    found = re.findall(
        r"(?:^|[/ `])fastprovd (?!fastprovd)([a-z][a-z-]*(?: [^`\n#&;]*)?)", code, re.MULTILINE
    )
    return {line.strip() for line in found}


def configuration_rows(table: Any, path: str = "") -> Iterator[str]:
    """Yield one row of the configuration table for every key, in order."""
    kinds = field_types(type(table))
    nested = []
    for item in fields(table):
        if item.name not in kinds:
            continue
        value, below = getattr(table, item.name), f"{path}{item.name}"
        if is_dataclass(value):
            nested.append((value, f"{below}."))
            continue
        rules = item.metadata
        default = "-"
        if value is not None:
            default = f"`{format_value(value, hexadecimal=rules['hexadecimal'])}`"
        kind = optional(kinds[item.name])[0]
        allowed = ""
        for arm in either(kind):
            if get_origin(arm) is Literal:
                allowed = ", ".join(f"`{format_value(choice)}`" for choice in get_args(arm))
        if rules["low"] is not None:
            low, high = (
                format_value(rules[end], hexadecimal=rules["hexadecimal"])
                for end in ("low", "high")
            )
            allowed = f"{low}..{high}" + (f" or {allowed}" if allowed else "")
            if kind is bytes:
                allowed += " octets"
        unit = " s" if item.name.endswith("_s") else ""
        yield f"| `{below}` | {default}{unit} | {allowed}{unit} | {rules['doc']} |"
    for value, prefix in nested:
        yield from configuration_rows(value, prefix)


def rows_after(head: str) -> list[str]:
    """Return the rows of the table with this head line."""
    lines = README.partition(f"\n{head}\n")[2].splitlines()
    assert lines, f"no table {head}"
    end = next(i for i, line in enumerate(lines) if not line.startswith("|"))
    return lines[1:end]


def published() -> Iterator[Message]:
    """Yield one message for each kind of payload."""
    run, node = Run("r-1", RunState.DONE, NOW), Node(2, "r-1")
    yield state_message(TOPICS, NOW)
    yield info_message(
        TOPICS,
        GatewayInfo("1", "gw", NOW),
        {"host": "localhost", "port": 1883, "version": 5, "set_aside": 0},
    )
    yield nodes_message(TOPICS, [node], run, 1, NOW)
    yield node_message(TOPICS, node)
    yield groups_message(TOPICS, [Membership(0xC010, 2, is_member=True)], NOW)
    yield run_message(TOPICS, run, NOW)
    yield event_message(TOPICS, 1, "run_started", {}, "r-1", NOW)


def shape(value: Any) -> Any:
    """Return the keys of a JSON value at every depth that has the same keys in all messages."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items() if name != "data"}
    if isinstance(value, list):
        return shape(value[0]) if value and isinstance(value[0], dict) else None
    return None


def test_every_subcommand_named_exists(capsys: pytest.CaptureFixture[str]) -> None:
    """README and parser know the same subcommands."""
    named = {line.split()[0] for line in command_lines()}
    assert named == subcommands(capsys)


def test_every_option_named_exists(capsys: pytest.CaptureFixture[str]) -> None:
    """A subcommand has each option that it is shown with."""
    for line in command_lines():
        command, *arguments = shlex.split(line)
        with pytest.raises(SystemExit):
            main([command, "--help"])
        known = re.findall(r"--[a-z-]+", capsys.readouterr().out)
        for option in (argument for argument in arguments if argument.startswith("--")):
            assert option in known, line


def test_every_topic_is_named() -> None:
    """Each topic of Topics, and each command, stands in the README in code."""
    properties = [name for name, value in vars(Topics).items() if isinstance(value, property)]
    names = {getattr(TOPICS, name).removeprefix("base/") for name in properties}
    names |= {TOPICS.node(2).removeprefix("base/")} | COMMANDS
    assert len(names) > len(COMMANDS) + 5
    assert [name for name in sorted(names) if f"`{name}`" not in README] == []
    for command in COMMANDS & {"run/start", "node/set", "node/get"}:
        assert TOPICS.response(command).removeprefix("base/") in README


def test_examples_have_the_fields_of_real_payloads() -> None:
    """Each example payload has exactly the fields that are published."""
    examples = re.findall(
        r"^`((?:bridge|node)/\w+)`:[^\n]*\n\n```json\n(.*?)```", README, re.MULTILINE | re.DOTALL
    )
    shown = {re.sub("0x.*", "", topic): shape(json.loads(text)) for topic, text in examples}
    real = {
        re.sub("0x.*", "", message.topic.removeprefix("base/")): shape(json.loads(message.payload))
        for message in published()
    }
    assert shown == real


def test_the_configuration_table_is_complete() -> None:
    """Every key with its default, range and text, as config.py has them."""
    expected = list(configuration_rows(Config()))
    found = rows_after("| Key | Default | Allowed | Meaning |")
    assert found == expected, "the table should be:\n" + "\n".join(expected)


def test_every_reason_why_a_board_is_missing_is_explained() -> None:
    """Each sentence that a run can say of a missing board stands in the README, verbatim."""
    node = Node(2, "r", listed=True)
    primary = replace(node, role=NodeRole.PRIMARY_PROVISIONER)
    left = [HeardBoard(b"x" * 16, "AA", -50, 0.0)]
    missing = [
        missing_boards([node], [], None, 1),
        missing_boards([primary], [], None, 1),
        missing_boards([replace(node, proven=True), replace(node, address=3)], [], None, 1),
        missing_boards([node], left, None, 2, is_complete=False),
        missing_boards([], left, None, 1),
        missing_boards([], left, None, 1, failed={b"x" * 16: "..."}),
        missing_boards([], [], 20, 19),
        missing_boards([], [], 20, 20),
        missing_boards([], [], None, 0, namesakes=[(left[0], "...")]),
        bounded([MissingBoard("...")] * (MOST_NAMED + 1))[-1:],
    ]
    reasons = {board.reason for boards in missing for board in boards} | {FORMER}
    reasons = {reason.replace("and 1 more", "and ... more") for reason in reasons}
    assert len(reasons) == 12
    assert [reason for reason in sorted(reasons) if f"| `{reason}` |" not in README] == []


def test_the_table_of_the_doors_is_that_of_the_tests() -> None:
    """Each contract test stands in tests/README.md with the doors at which it runs."""
    head, *expected = table(DOORS)
    lines = (ROOT / "tests" / "README.md").read_text("utf-8").splitlines()
    found = lines[lines.index(head) + 1 :][: len(expected)]
    assert found == expected, "python -m tests.support.contract.table prints the right one"


def test_the_plan_is_what_the_program_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plans in the README are the output of the commands above them, with all defaults."""
    found = re.findall(
        r"`\.venv/bin/fastprovd (plan [^`]*)` prints:\n\n```text\n(.*?)```", README, re.DOTALL
    )
    assert len(found) == 2
    empty = tmp_path / "fastprovd.toml"
    empty.write_text(f'[state]\ndirectory = "{tmp_path / "state"}"\n')
    for command, printed in found:
        assert main([*shlex.split(command), "--config", str(empty)]) == 0
        assert printed == capsys.readouterr().out


def test_the_exit_codes_are_those_of_the_program() -> None:
    """Exit codes and their meaning are those of --help."""
    expected = [f"| {code.value} | {meaning} |" for code, meaning in MEANINGS.items()]
    assert rows_after("| Exit code | Meaning |") == expected


@pytest.mark.parametrize(
    "names",
    [list(ErrorCode), list(RunState), list(Proof), [flaw.name for flaw in fields(Flaws)]],
)
def test_closed_lists_are_complete(names: list[str]) -> None:
    """Error codes, states of a run, proofs and flaws are all explained."""
    assert [str(name) for name in names if f"`{name}`" not in README] == []


def test_the_test_command_is_that_of_continuous_integration() -> None:
    """What the README says `.ci/run` calls is what it calls, and those targets exist."""
    script = (ROOT / ".ci" / "run").read_text("utf-8")
    called = re.findall("^make [a-z-]+$", script, re.MULTILINE)
    assert called
    sentence = README.partition("is what continuous integration runs:")[2].partition("\n")[0]
    assert re.findall("`(make [a-z-]+)`", sentence) == called
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for target in re.findall("`make ([a-z-]+)`", README):
        assert f"\n{target}:" in makefile
