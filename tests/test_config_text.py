"""The configuration as text can be read back."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

from fastprovd.checking import check_mapping
from fastprovd.config import Config, load
from fastprovd.config_text import example, format_effective

EXAMPLE = Path(__file__).parents[1] / "config" / "fastprovd.example.toml"


def test_the_committed_example_is_up_to_date() -> None:
    """config/fastprovd.example.toml is what `example()` makes; write it anew after a change."""
    assert EXAMPLE.read_text("utf-8") == example()


def test_the_example_loads_as_the_defaults() -> None:
    """Copied unchanged, the example changes nothing."""
    assert load(EXAMPLE, {}, "") == Config()


def test_every_key_of_the_example_is_right_once_uncommented() -> None:
    """With the comment marks gone every key is known, every sample valid, every default itself."""
    text = re.sub(r"^#(\w+ = )", r"\1", example(), flags=re.MULTILINE)
    config, problems = check_mapping(Config, tomllib.loads(text))
    assert problems == []
    assert config is not None
    assert config.mesh == Config().mesh
    assert config.run.expected == 20
    assert text.count(" = ") > 25


def test_effective_configuration_loads_as_itself(tmp_path: Path) -> None:
    """What check-config prints is TOML that gives the same configuration."""
    file = tmp_path / "a.toml"
    file.write_text(
        '[mqtt]\nusername = "me \\"x\\""\ntls.enabled = true\n[mesh]\nmatch = "ddddee"\n'
        "[run]\nexpected = 7\n"
    )
    config = load(file, {"STATE_DIRECTORY": "/x"}, "gw1")
    again = tmp_path / "b.toml"
    again.write_text(format_effective(config))
    assert load(again, {}, "other") == config


def test_effective_configuration_names_origins(tmp_path: Path) -> None:
    """Each value has its origin beside it: file and line, variable, system, or default."""
    file = tmp_path / "a.toml"
    file.write_text("[mqtt]\nport = 1884\n")
    shown = format_effective(load(file, {"FASTPROVD_LOG__LEVEL": "debug"}, "gw1"))
    lines = {line.split(" #")[0].rstrip(): line.split(" # ")[1:] for line in shown.splitlines()}
    assert lines["port = 1884"] == [f"{file}:2"]
    assert lines['level = "debug"'] == ["FASTPROVD_LOG__LEVEL"]
    assert lines['id = "gw1"'] == ["host name"]
    assert lines['host = "localhost"'] == ["default"]
    assert lines["# password_file is not set"] == ["default"]
