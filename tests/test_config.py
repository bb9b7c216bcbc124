"""Sections, rules between values, and the layers joined."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastprovd import config as config_module
from fastprovd.config import Config, MqttConfig, load, read_password
from fastprovd.errors import ConfigError


@pytest.fixture
def toml(tmp_path: Path) -> Path:
    """Where a test writes its configuration."""
    return tmp_path / "fastprovd.toml"


def problems_of(toml: Path, text: str, environ: dict[str, str] | None = None) -> list[str]:
    toml.write_text(text)
    with pytest.raises(ConfigError) as caught:
        load(toml, environ or {}, "gw1")
    return caught.value.problems


def test_an_empty_file_is_all_defaults(toml: Path) -> None:
    """Nothing is required: the defaults are a working configuration."""
    toml.write_text("")
    config = load(toml, {}, "")
    assert config == Config()
    assert config.origins == {}


def test_the_prescribed_defaults() -> None:
    """The values that the documentation promises."""
    config = Config()
    assert (config.mqtt.port, config.mqtt.protocol, config.mqtt.keepalive_s) == (1883, "5", 15)
    assert (config.mesh.provisioner_address, config.mesh.group) == (0x0001, 0xC000)
    assert config.mesh.match == b"\xdd\xdd"
    assert config.run.expected is None
    assert config.state.directory == Path("/var/lib/fastprovd")


def test_later_layers_win(toml: Path) -> None:
    """conf.d wins over the file, by name, and the environment over both, key by key."""
    toml.write_text('[mqtt]\nhost = "a"\nport = 1\nkeepalive_s = 20\ntimeout_s = 9\n')
    (toml.parent / "conf.d").mkdir()
    (toml.parent / "conf.d" / "20.toml").write_text("mqtt.port = 3\n")
    (toml.parent / "conf.d" / "10.toml").write_text("[mqtt]\nport = 2\nkeepalive_s = 30\n")
    (toml.parent / "conf.d" / "30.txt").write_text("no configuration")
    config = load(toml, {"FASTPROVD_MQTT__TIMEOUT_S": "7.5"}, "gw1")
    assert config.mqtt == MqttConfig(host="a", port=3, keepalive_s=30, timeout_s=7.5)
    assert config.origins["mqtt.host"] == f"{toml}:2"
    assert config.origins["mqtt.port"] == f"{toml.parent}/conf.d/20.toml:1"
    assert config.origins["mqtt.timeout_s"] == "FASTPROVD_MQTT__TIMEOUT_S"


def test_all_mistakes_of_all_layers_at_once(toml: Path) -> None:
    """Every mistake has its place, key and advice, whichever layer it is in."""
    problems = problems_of(
        toml,
        '[mqtt]\nport = "88a3"\ntls = { enabld = true }\n\n[mesh]\nunicast_mn = 3\n'
        "group = 0x1234\n",
        {"FASTPROVD_LOG__LEVEL": "loud"},
    )
    assert problems == [
        f"{toml}:2: mqtt.port: expected int, got str '88a3'",
        f"{toml}:3: mqtt.tls.enabld: unknown key, did you mean 'enabled'?",
        f"{toml}:6: mesh.unicast_mn: unknown key, did you mean 'unicast_min'?",
        f"{toml}:7: mesh.group: expected 0xc000..0xfeff, got 0x1234",
        "FASTPROVD_LOG__LEVEL: log.level: expected one of 'debug', 'info', 'warning', 'error', "
        "got str 'loud'",
    ]


def test_rules_hold_beside_broken_sections(toml: Path) -> None:
    """A rule between sound values is reported together with a mistake in another section."""
    problems = problems_of(toml, "[mqtt]\nport = 0\n[mesh]\nunicast_min = 9\nunicast_max = 5\n")
    assert problems == [
        f"{toml}:2: mqtt.port: expected 1..65535, got 0",
        f"{toml}:5: mesh.unicast_max: 0x0005 is below unicast_min 0x0009",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("[mesh]\nunicast_min = 1", "mesh.provisioner_address: 0x0001 is ours"),
        ("[mesh]\nunicast_max = 5\n[run]\nexpected = 5", ":4: run.expected: 5 boards do not fit"),
        (
            "[bluetooth]\nmax_links = 3\n[run]\nprimaries = 4",
            ":4: run.primaries: 4 need as many links, and [bluetooth] max_links is 3",
        ),
        ('[mqtt]\npassword_file = "/x"', ":2: mqtt.username: a password needs a user name"),
        ('[mqtt.tls]\nenabled = true\ncert = "/x"', ":3: mqtt.tls.key: cert is nothing without"),
        ('[mqtt.tls]\nenabled = true\nkey = "/x"', ":3: mqtt.tls.cert: key is nothing without"),
        ('[mqtt.tls]\nca = "/x"', ":2: mqtt.tls.enabled: false, but certificates are given"),
        ('[mesh]\nallow = ["dd00"]', ":2: mesh.allow[0]: no Device UUID of dd00 begins with"),
        (
            '[mesh]\ndeny = ["AA:BB:CC:DD:EE:01"]\nallow = [\n  "dddd24",\n'
            '  "aa:bb:cc:dd:ee:01",\n]',
            ":5: mesh.allow[1]: aa:bb:cc:dd:ee:01 is denied by AA:BB:CC:DD:EE:01, which wins",
        ),
        ('[mesh]\n\ndeny = ["dd00", "dddd"]', ":3: mesh.deny[1]: dddd denies all boards"),
    ],
)
def test_rules_between_values(toml: Path, text: str, problem: str) -> None:
    """Values that do not go together are named, each once."""
    (found,) = problems_of(toml, text)
    assert problem in found


@pytest.mark.parametrize(
    ("text", "doubt"),
    [
        ("[mqtt.tls]\nenabled = true", ":2: mqtt.port: 1883 is usually without TLS"),
        ("[mqtt]\nport = 8883", ":2: mqtt.port: 8883 is usually with TLS"),
        (
            "[run]\nrun_timeout_s = 60",
            ":2: run.proxy_timeout_s: 90 s are never reached, since run_timeout_s is 60 s",
        ),
        (
            "[run]\nscan_timeout_s = 700",
            ":2: run.scan_timeout_s: 700 s are never reached, since run_timeout_s is 600 s",
        ),
        (
            '[mesh]\nmatch = "dddd24"\ndeny = ["dddd25"]',
            ":3: mesh.deny[0]: no Device UUID of dddd25 begins with mesh.match dddd24",
        ),
    ],
)
def test_what_works_and_is_not_meant(toml: Path, text: str, doubt: str) -> None:
    """It is taken, and said with its line."""
    toml.write_text(text)
    (found,) = load(toml, {}, "gw1").doubts
    assert found.startswith(f"{toml}{doubt}")


def test_nothing_is_doubtful_about_the_defaults(toml: Path) -> None:
    """Nor about a port for TLS with TLS."""
    toml.write_text("[mqtt]\nport = 8883\ntls.enabled = true\n")
    assert load(toml, {}, "gw1").doubts == ()


@pytest.mark.parametrize(("mode", "is_told"), [(0o600, False), (0o640, False), (0o644, True)])
@pytest.mark.parametrize("key", ["password_file", "tls.key"])
def test_secrets_that_everybody_can_read(toml: Path, key: str, mode: int, is_told: bool) -> None:
    """A password or private key that others may read is told of; its group may read it."""
    secret = toml.parent / "secret"
    secret.write_text("s3cret\n")
    secret.chmod(mode)
    toml.write_text(
        f'[mqtt]\nusername = "u"\nport = 8883\ntls.enabled = true\n{key} = "{secret}"\n'
        + (f'tls.cert = "{secret}"\n' if key == "tls.key" else "")
    )
    told = [f"{toml}:5: mqtt.{key}: everybody on this machine can read {secret}; chmod o= it"]
    assert list(load(toml, {}, "gw1").doubts) == (told if is_told else [])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("mqtt.host", "mqtt://broker"),
        ("mqtt.base_topic", "$SYS/x"),
        ("mqtt.username", "a\\u0001b"),
        ("mqtt.password_file", "password"),
        ("mqtt.tls.ca", "ca.pem"),
        ("mqtt.tls.cert", "./cert.pem"),
        ("mqtt.tls.key", "~/key.pem"),
        ("state.directory", "state"),
    ],
)
def test_texts_that_can_not_work(toml: Path, key: str, value: str) -> None:
    """Each key has its check, and the line is told."""
    found = problems_of(toml, f'# first line\n{key} = "{value}"\n')
    assert found[0].startswith(f"{toml}:2: {key}: expected ")


def test_a_relative_state_directory_of_the_service(toml: Path) -> None:
    """Is refused in the name of where it comes from."""
    (found,) = problems_of(toml, "", {"STATE_DIRECTORY": "state"})
    assert found.startswith("$STATE_DIRECTORY: state.directory: expected a path that begins with /")


def test_a_rule_broken_by_the_environment_is_told_of_there(toml: Path) -> None:
    """The place is that of the part which is written, whichever key is named."""
    (found,) = problems_of(toml, "", {"FASTPROVD_MQTT__PASSWORD_FILE": "/x"})
    assert found.startswith("FASTPROVD_MQTT__PASSWORD_FILE: mqtt.username: a password needs")


@pytest.mark.parametrize(
    ("written", "problem"),
    [
        ("0", "expected 1..32 or 'auto', got int 0"),
        ("33", "expected 1..32 or 'auto', got int 33"),
        ("2.5", "expected int or 'auto', got float 2.5"),
        ("true", "expected int or 'auto', got bool True"),
        ('"many"', "expected int or 'auto', got str 'many'"),
    ],
)
def test_a_wrong_number_of_links(toml: Path, written: str, problem: str) -> None:
    """The sentence names both ways to write it right."""
    found = problems_of(toml, f"[bluetooth]\nmax_links = {written}\n")
    assert found == [f"{toml}:2: bluetooth.max_links: {problem}"]


@pytest.mark.parametrize(
    ("text", "environment", "ceiling"),
    [
        ("", {}, None),
        ('max_links = "auto"', {}, None),
        ("max_links = 7", {}, 7),
        ("max_links = 7", {"FASTPROVD_BLUETOOTH__MAX_LINKS": "auto"}, None),
        ("", {"FASTPROVD_BLUETOOTH__MAX_LINKS": "3"}, 3),
    ],
)
def test_links_are_found_out_or_a_number(
    toml: Path, text: str, environment: dict[str, str], ceiling: int | None
) -> None:
    """A number is a ceiling, auto is none."""
    toml.write_text(f"[bluetooth]\n{text}\n")
    assert load(toml, environment, "gw1").bluetooth.links_ceiling == ceiling


def test_expected_that_just_fits(toml: Path) -> None:
    """A range with exactly one address for each board is enough."""
    toml.write_text("[mesh]\nunicast_max = 5\n[run]\nexpected = 4\n")
    assert load(toml, {}, "gw1").run.expected == 4


def test_a_literal_password_is_not_offered(toml: Path) -> None:
    """A password in the file is an unknown key, and its value is not repeated."""
    (problem,) = problems_of(toml, '[mqtt]\npassword = "hunter2"\n')
    assert problem.endswith("mqtt.password: unknown key, did you mean 'password_file'?")


def test_a_file_that_was_named_must_exist(toml: Path) -> None:
    """A path given by the operator is not silently skipped."""
    with pytest.raises(ConfigError, match=rf"^{toml}: No such file or directory$"):
        load(toml, {}, "gw1")


def test_the_default_file_may_be_absent(toml: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without --config and without a file in its usual place the defaults are in effect."""
    monkeypatch.setattr(config_module, "DEFAULT_PATH", toml)
    assert load(None, {}, "") == Config()
    toml.write_text("[mqtt]\nport = 5\n")
    assert load(None, {}, "").mqtt.port == 5


def test_password_is_the_first_line_of_its_file(tmp_path: Path) -> None:
    """The line end an editor adds is not part of the password; spaces are."""
    file = tmp_path / "password"
    file.write_text(" s3cret \nmore\n")
    assert read_password(MqttConfig(password_file=file)) == " s3cret "
    assert read_password(MqttConfig()) is None


def test_unreadable_password_is_a_sentence(tmp_path: Path) -> None:
    """A missing or binary password file names key, file and reason."""
    file = tmp_path / "password"
    with pytest.raises(ConfigError, match=r"mqtt.password_file: .*: No such file or directory"):
        read_password(MqttConfig(password_file=file))
    file.write_bytes(os.urandom(8) + b"\xff")
    with pytest.raises(ConfigError, match="not UTF-8"):
        read_password(MqttConfig(password_file=file))
    file.write_text("\ns3cret\n")
    with pytest.raises(ConfigError, match="its first line is empty"):
        read_password(MqttConfig(password_file=file))


@pytest.mark.parametrize("name", ["fastprovd.toml", "conf.d"])
def test_what_can_not_be_read_is_not_left_out(
    toml: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A configuration that is there and closed to us is a mistake, not an absent one."""
    monkeypatch.setattr(config_module, "DEFAULT_PATH", toml)
    (toml.parent / name).symlink_to(name)  # as unreadable as a closed directory, also for root
    with pytest.raises(ConfigError, match=f"{name}: Too many levels of symbolic links"):
        load(None, {}, "gw1")
