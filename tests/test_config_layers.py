"""Where values come from: system, files, environment."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastprovd.config import Config
from fastprovd.config_layers import Layers


@pytest.fixture
def layers() -> Layers:
    """No layer yet."""
    return Layers(Config)


@pytest.mark.parametrize(
    ("host_name", "gateway_id"),
    [
        ("gw1", "gw1"),
        ("Hall-7.factory.example", "hall-7"),
        ("Büro_3", "b-ro_3"),
        ("x" * 40, "x" * 32),
    ],
)
def test_gateway_id_from_the_host_name(layers: Layers, host_name: str, gateway_id: str) -> None:
    """The host name is reduced to what a topic and a client identifier may hold."""
    layers.add_system({}, host_name)
    assert layers.values == {"gateway": {"id": gateway_id}}
    assert layers.origin("gateway.id") == "host name"


@pytest.mark.parametrize("host_name", ["", "...", "日本"])
def test_a_host_name_without_a_usable_character(layers: Layers, host_name: str) -> None:
    """Nothing usable leaves the default in effect."""
    layers.add_system({}, host_name)
    assert layers.values == {}


def test_directories_of_the_service(layers: Layers, tmp_path: Path) -> None:
    """systemd's state directory and credential are taken; the first of several directories."""
    environ = {"STATE_DIRECTORY": "/var/lib/a:/var/lib/b", "CREDENTIALS_DIRECTORY": str(tmp_path)}
    layers.add_system(environ, "")
    assert layers.values == {"state": {"directory": "/var/lib/a"}}
    (tmp_path / "mqtt.password").write_text("x")
    layers.add_system(environ, "")
    assert layers.values["mqtt"] == {"password_file": str(tmp_path / "mqtt.password")}
    assert layers.origin("mqtt.password_file") == "$CREDENTIALS_DIRECTORY"


def test_lines_of_a_file(layers: Layers, tmp_path: Path) -> None:
    """Keys in tables, dotted keys, quoted keys and inline tables are found at their lines."""
    file = tmp_path / "a.toml"
    file.write_text(
        "# mqtt.port = 1\n"
        'mesh.match = "dddd"\n'
        "[ mqtt . tls ] # TLS\n"
        "'enabled' = true\n"
        "[run]\n"
        "  expected=5\n"
        "[log]\n"
        'level = "info"\n'
    )
    layers.add_file(file)
    assert layers.problems == []
    places = ("mesh.match", "mqtt.tls", "mqtt.tls.enabled", "run.expected", "log.level")
    assert [layers.origin(path) for path in places] == [f"{file}:{n}" for n in (2, 3, 4, 6, 8)]


def test_the_place_of_a_part_is_that_of_the_whole(layers: Layers, tmp_path: Path) -> None:
    """What stands in an inline table is found at the line of the table; the unknown nowhere."""
    file = tmp_path / "a.toml"
    file.write_text("[mqtt]\n\ntls = { ca = 'x' }\n")
    layers.add_file(file)
    assert layers.origin("mqtt.tls.ca") == f"{file}:3"
    assert layers.origin("mqtt.port") == f"{file}:1"
    assert layers.origin("mesh.group") is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[mqtt]\nport 1883\n", ":2: not TOML: "),
        (b"[mqtt]\nport = 1\nport = 2\n", ":3: not TOML: Cannot overwrite a value"),
        (b"[mqtt]\n[log]\n[mqtt]\n", ":3: not TOML: Cannot declare"),
        (b"[mqtt]\nport =\n\n", ":2: not TOML: Invalid value"),
        (b"[mqtt]\nport =", ":2: not TOML: Invalid value"),
        (b"\xff\xfe", ": not UTF-8"),
    ],
)
def test_files_that_are_no_toml(
    layers: Layers, tmp_path: Path, content: bytes, problem: str
) -> None:
    """A file that can not be read is one problem with its line, and adds nothing."""
    file = tmp_path / "a.toml"
    file.write_bytes(content)
    layers.add_file(file)
    assert layers.values == {}
    (found,) = layers.problems
    assert found.startswith(str(file))
    assert problem in found


def test_environment_values_take_the_type_of_their_key(layers: Layers) -> None:
    """Numbers and truth values are read as TOML; text stays text, also where it looks like one."""
    layers.add_environment(
        {
            "FASTPROVD_MESH__GROUP": "0xC001",
            "FASTPROVD_MQTT__ENABLED": "false",
            "FASTPROVD_MQTT__TIMEOUT_S": "2.5",
            "FASTPROVD_MQTT__USERNAME": "123",
            "FASTPROVD_MQTT__TLS__CA": "/ca.pem",
            "FASTPROVD_RUN__EXPECTED": "20",
            "FASTPROVD_MQTT__PORT": "soon",
            "HOME": "/root",
        }
    )
    assert layers.values == {
        "mesh": {"group": 0xC001},
        "mqtt": {
            "enabled": False,
            "timeout_s": 2.5,
            "username": "123",
            "tls": {"ca": "/ca.pem"},
            "port": "soon",
        },
        "run": {"expected": 20},
    }
    assert layers.origin("mqtt.tls.ca") == "FASTPROVD_MQTT__TLS__CA"


def test_unknown_keys_of_the_environment_are_kept_to_be_reported(layers: Layers) -> None:
    """A misspelt variable becomes an unknown key, also below a value that is no table."""
    layers.add_environment({"FASTPROVD_MQQT__HOST": "x", "FASTPROVD_MQTT__HOST__NAME": "y"})
    assert layers.values == {"mqqt": {"host": "x"}, "mqtt": {"host": {"name": "y"}}}


@pytest.mark.parametrize(
    ("name", "right"),
    [
        ("FASTPROVD_MQTT_HOST", "FASTPROVD_MQTT__HOST"),
        ("FASTPROVD_MQTT_TLS_ENABLED", "FASTPROVD_MQTT__TLS__ENABLED"),
        ("FASTPROVD_MQTT__TLS_CA", "FASTPROVD_MQTT__TLS__CA"),
        ("FASTPROVD_STATE_DIRECTORY", "FASTPROVD_STATE__DIRECTORY"),
        ("FASTPROVD_RUN__RUN__TIMEOUT_S", "FASTPROVD_RUN__RUN_TIMEOUT_S"),
        ("fastprovd_mqtt__host", "FASTPROVD_MQTT__HOST"),
    ],
)
def test_a_name_with_wrong_underscores_is_told_right(layers: Layers, name: str, right: str) -> None:
    """A variable that somebody means to count is not left aside; its value is not repeated."""
    layers.add_environment({name: "hunter2"})
    assert layers.problems == [f"{name}: no name of a key, did you mean {right}?"]
    assert layers.values == {}


@pytest.mark.parametrize("name", ["FASTPROVD_BENCH", "FASTPROVD_", "fastprovd_x__y"])
def test_other_names_are_doubtful(layers: Layers, name: str) -> None:
    """They may be another program's, and change nothing."""
    layers.add_environment({name: "x"})
    assert (layers.values, layers.problems) == ({}, [])
    (doubt,) = layers.doubts
    assert doubt.startswith(f"{name}: no name of a key, so it changes nothing")


def test_items_of_a_list_have_places_of_their_own(layers: Layers, tmp_path: Path) -> None:
    """Those of the layer that wins, and none of a longer list below it."""
    file = tmp_path / "a.toml"
    file.write_text("[mesh]\nallow = [\n 'dddd01',\n 'dddd02',\n]\n")
    layers.add_file(file)
    assert layers.origin("mesh.allow[1]") == f"{file}:4"
    layers.add_environment({"FASTPROVD_MESH__ALLOW": "['dddd03']"})
    assert layers.origin("mesh.allow[0]") == "FASTPROVD_MESH__ALLOW"
    assert "mesh.allow[1]" not in layers.origins
