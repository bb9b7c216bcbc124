"""The unit that is shipped: right by systemd's own judgement, and what we promise about it."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UNIT = ROOT / "systemd" / "fastprovd.service"
SYSUSERS = ROOT / "systemd" / "fastprovd.sysusers"


@pytest.fixture(scope="module")
def settings() -> dict[str, list[str]]:
    """Every setting of the unit, `Section.Key` to its values in order."""
    found: dict[str, list[str]] = defaultdict(list)
    section = ""
    for line in UNIT.read_text("utf-8").splitlines():
        if header := re.fullmatch(r"\[(\w+)\]", line):
            section = header[1]
        elif line and not line.startswith("#"):
            key, equals, value = line.partition("=")
            assert equals, f"not a setting: {line}"
            found[f"{section}.{key}"].append(value)
    return dict(found)


def test_start_and_stop(settings: dict[str, list[str]]) -> None:
    """The unit waits for READY=1, restarts failures, and lets rest what a start does not heal."""
    assert settings["Service.Type"] == ["notify"]
    assert settings["Service.NotifyAccess"] == ["main"]
    assert settings["Service.Restart"] == ["on-failure"]
    assert settings["Service.RestartPreventExitStatus"] == ["65 75 78"]
    assert settings["Service.TimeoutStopSec"] == ["20s"]


def test_it_starts_the_command_that_is_installed(settings: dict[str, list[str]]) -> None:
    """ExecStart runs our console script with the configuration of the system."""
    (command,) = settings["Service.ExecStart"]
    program, *arguments = command.split()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert Path(program).name in project["scripts"]
    assert arguments == ["run", "--config", "/etc/fastprovd/fastprovd.toml"]


def test_state_is_private(settings: dict[str, list[str]]) -> None:
    """The state directory has the mode that the store insists on."""
    assert settings["Service.StateDirectory"] == ["fastprovd"]
    assert settings["Service.StateDirectoryMode"] == ["0700"]
    assert settings["Service.UMask"] == ["0077"]


def test_a_restart_of_bluetoothd_does_not_end_us(settings: dict[str, list[str]]) -> None:
    """Bluetooth and broker are wanted and waited for, never required or bound to."""
    hard = {"Unit.BindsTo", "Unit.Requires", "Unit.Requisite", "Unit.PartOf"}
    assert not hard & settings.keys()
    assert "bluetooth.service" in settings["Unit.Wants"][0].split()
    assert "bluetooth.service" in settings["Unit.After"][0].split()


def test_no_privilege_is_asked_for(settings: dict[str, list[str]]) -> None:
    """A plain user without capabilities, and no group that may not exist."""
    assert settings["Service.User"] == ["fastprovd"]
    assert settings["Service.CapabilityBoundingSet"] == [""]
    assert settings["Service.NoNewPrivileges"] == ["yes"]
    assert "Service.SupplementaryGroups" not in settings


def test_the_account_of_the_unit_is_made(settings: dict[str, list[str]]) -> None:
    """sysusers makes the user that the unit runs as."""
    accounts = [line.split()[:2] for line in SYSUSERS.read_text().splitlines() if line[0] != "#"]
    assert accounts == [["u", *settings["Service.User"]]]


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="no systemd-analyze here")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    """systemd-analyze has no complaint; the program is replaced by one that exists everywhere."""
    unit = tmp_path / UNIT.name
    unit.write_text(re.sub("(?m)^ExecStart=.*", "ExecStart=/bin/true", UNIT.read_text("utf-8")))
    verified = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    complaints = [line for line in verified.stderr.splitlines() if "fastprovd" in line]
    assert complaints == []
    assert verified.returncode == 0, verified.stderr
