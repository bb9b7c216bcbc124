"""The configuration: TOML files and environment to frozen dataclasses.

Each limit and timeout has its unit in its name and its reason in its text, which is also the
comment in config/fastprovd.example.toml.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from fastprovd.checking import check_mapping, setting
from fastprovd.config_layers import Layers
from fastprovd.config_rules import broken_rules, doubts
from fastprovd.config_values import absolute_path, base_topic, broker_host, mqtt_text
from fastprovd.errors import ConfigError
from fastprovd.mesh import addresses
from fastprovd.mesh.device_uuids import BOARD_PATTERN

DEFAULT_PATH: Final = Path("/etc/fastprovd/fastprovd.toml")
MAX_LINKS: Final = 32

_GATEWAY_ID: Final = r"[a-z0-9_-]{1,32}"
_BOARD: Final = "a Bluetooth address, or 2 to 16 octets of a Device UUID in hex"
_ADAPTER: Final = r"(hci\d+|([0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2})?"


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """Who this gateway is."""

    id: str = setting(
        "fastprovd",
        "Part of every topic: BASE_TOPIC/ID/... Default: the host name, reduced to a-z 0-9 _ -",
        pattern=_GATEWAY_ID,
        expected="1 to 32 of a-z 0-9 _ -",
    )


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """TLS to the broker."""

    enabled: bool = setting(False, "The port for TLS is usually 8883.")
    ca: Path | None = setting(
        None,
        "Certificates of the authorities to trust (PEM). Default: those of the system.",
        check=absolute_path,
        sample="/etc/fastprovd/ca.pem",
    )
    cert: Path | None = setting(
        None,
        "Our client certificate (PEM); needs `key`.",
        check=absolute_path,
        sample="/etc/fastprovd/client.pem",
    )
    key: Path | None = setting(
        None,
        "The private key of `cert` (PEM), not encrypted.",
        check=absolute_path,
        sample="/etc/fastprovd/client.key",
    )


@dataclass(frozen=True, slots=True)
class MqttConfig:
    """The broker that the address list goes to."""

    enabled: bool = setting(True, "false: run without a broker.")
    host: str = setting(
        "localhost", "Name or address of the broker, without scheme and port.", check=broker_host
    )
    port: int = setting(1883, "Port of the broker.", low=1, high=65535)
    protocol: Literal["5", "3.1.1"] = setting("5", "Version of MQTT.")
    username: str = setting("", "Empty: no user name.", check=mqtt_text)
    password_file: Path | None = setting(
        None,
        "File that holds the password on its first line. Default: the systemd credential "
        "mqtt.password, if the service has it. A password itself has no place in this file.",
        check=absolute_path,
        sample="/etc/fastprovd/mqtt.password",
    )
    base_topic: str = setting(
        "fastprovd",
        "First levels of every topic.",
        check=base_topic,
    )
    keepalive_s: int = setting(
        15,
        "The broker sends our last will after 1.5 times this; we notice a dead broker after twice.",
        low=5,
        high=3600,
    )
    timeout_s: float = setting(
        5.0,
        "Limit for connecting and for each acknowledgement: many times a slow LAN.",
        low=1,
        high=60,
    )
    tls: TlsConfig = field(default_factory=TlsConfig)


@dataclass(frozen=True, slots=True)
class BluetoothConfig:
    """The Bluetooth adapter."""

    adapter: str = setting(
        "",
        "Name (hci0) or address (AA:BB:CC:DD:EE:FF; names may change from boot to boot). "
        "Empty: the first that is on.",
        pattern=_ADAPTER,
        expected="hci0, an address such as AA:BB:CC:DD:EE:FF, or nothing",
    )
    max_links: int | Literal["auto"] = setting(
        "auto",
        "GATT links at once, those included that BlueZ is still hanging up. auto: as many as the "
        "adapter bears, which is found out; a number is a ceiling. Some adapters bear only 3, "
        "others 10 and more.",
        low=1,
        high=MAX_LINKS,
    )

    @property
    def links_ceiling(self) -> int | None:
        """The configured number; `None`: as many as the adapter bears."""
        return None if self.max_links == "auto" else self.max_links


@dataclass(frozen=True, slots=True)
class MeshConfig:
    """The network, and which boards belong to it."""

    provisioner_address: int = setting(
        0x0001,
        "Our own unicast address. Fixed once the network exists.",
        low=addresses.UNICAST_MIN,
        high=addresses.UNICAST_MAX,
        hexadecimal=True,
    )
    unicast_min: int = setting(
        0x0002,
        "First address that boards may get. No address is ever handed out twice, so the range "
        "must hold those of all runs to come.",
        low=addresses.UNICAST_MIN,
        high=addresses.UNICAST_MAX,
        hexadecimal=True,
    )
    unicast_max: int = setting(
        addresses.UNICAST_MAX,
        "Last address that boards may get.",
        low=addresses.UNICAST_MIN,
        high=addresses.UNICAST_MAX,
        hexadecimal=True,
    )
    group: int = setting(
        addresses.GROUP_MIN,
        "Group address that every board subscribes to.",
        low=addresses.GROUP_MIN,
        high=addresses.GROUP_MAX_DYNAMIC,
        hexadecimal=True,
    )
    match: bytes = setting(
        b"\xdd\xdd",
        "First octets of the Device UUIDs to provision, in hex, 2 to 16 octets.",
        low=2,
        high=16,
    )
    allow: tuple[str, ...] = setting(
        (),
        "The only boards to provision: Bluetooth addresses, or first octets of Device UUIDs in "
        "hex; they must begin with `match` too. Empty: all that do.",
        pattern=BOARD_PATTERN,
        expected=_BOARD,
    )
    deny: tuple[str, ...] = setting(
        (),
        "Boards never to provision, written like those of `allow`; wins over it.",
        pattern=BOARD_PATTERN,
        expected=_BOARD,
    )
    allow_strangers: bool = setting(
        False,
        "true: start although boards that are not ours are on the air which the boards would "
        "provision too, because their Device UUIDs begin like ours.",
    )
    net_key_index: int = setting(0, "Fixed once the network exists.", low=0, high=4095)
    app_key_index: int = setting(0, "Fixed once the network exists.", low=0, high=4095)


@dataclass(frozen=True, slots=True)
class RunConfig:
    """How a run is done, and its limits."""

    method: Literal["fast", "direct", "auto"] = setting(
        "auto",
        "direct: the gateway provisions each board that it hears itself, max_links at a time. "
        "fast: the boards provision each other. auto: direct where that is expected to be faster; "
        "boards that only other boards hear are then provisioned by those.",
    )
    expected: int | None = setting(
        None,
        "Number of boards, the Primary Provisioner too. Default: those heard while scanning.",
        sample=20,
        low=1,
        high=addresses.UNICAST_MAX,
    )
    primaries: int | None = setting(
        None,
        "Primary Provisioners of a run, at most max_links: each is connected while addresses are "
        "collected. Default: 1 below 20 boards, from then on 2.",
        sample=2,
        low=1,
        high=MAX_LINKS,
    )
    scan_timeout_s: float = setting(
        30.0,
        "How long to listen for boards, until all that are expected were heard; where no number is "
        "expected, until no new one came for 3.5 s.",
        low=1,
        high=3600,
    )
    connect_timeout_s: float = setting(
        5.0,
        "Limit of one attempt to connect: a good one takes a second, and to a board that just left "
        "the air it never ends.",
        low=1,
        high=60,
    )
    connect_attempts: int = setting(
        3, "Attempts to connect before the board counts as unreachable.", low=1, high=20
    )
    proxy_timeout_s: float = setting(
        90.0,
        "How long the Primary Provisioner may stay off the air after the start: it was seen to "
        "come back after 67 s with 24 boards.",
        low=15,
        high=3600,
    )
    settle_s: float = setting(
        10.0,
        "How long nothing may change before the address list counts as complete; a "
        "board reports 5 s after its last child, and repeats a lost report every 4 s.",
        low=1,
        high=600,
    )
    run_timeout_s: float = setting(
        600.0, "Limit of the whole run: ten times what 20 boards need.", low=30, high=86400
    )
    close: Literal["suspend", "onoff", "leave_open"] = setting(
        "suspend",
        "How the boards are told to take no more boards once all answered: suspend is a message to "
        "all; onoff sets each light to what it is, which each board confirms and takes longer; "
        "leave_open: not at all, so boards that are switched on later are still provisioned.",
    )
    resume: bool = setting(
        True,
        "Whether a run that was cut off by a crash or a power cut goes on at the next start. "
        "false: it ends as interrupted, with what was won.",
    )
    heal: Literal["on_start", "off"] = setting(
        "on_start",
        "What happens when boards that were nodes are found unprovisioned at the start, since they "
        "lost their power: on_start begins a run for them; off only says so.",
    )


@dataclass(frozen=True, slots=True)
class StateConfig:
    """Where the network is kept."""

    directory: Path = setting(
        Path("/var/lib/fastprovd"),
        "Keys, addresses and counters; mode 0700. Default: $STATE_DIRECTORY of the service.",
        check=absolute_path,
    )


@dataclass(frozen=True, slots=True)
class LogConfig:
    """What is logged, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = setting(
        "info", "The least that is logged; debug has a line for each PDU, as type and length."
    )
    format: Literal["auto", "json", "console"] = setting(
        "auto", "auto: console on a terminal, else JSON."
    )


@dataclass(frozen=True, slots=True)
class Config:
    """The whole configuration.

    `origins` has the place of each value that is no default, by dotted path; `doubts` are sentences
    about values that work, and most likely are not meant.
    """

    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    mqtt: MqttConfig = field(default_factory=MqttConfig)
    bluetooth: BluetoothConfig = field(default_factory=BluetoothConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
    run: RunConfig = field(default_factory=RunConfig)
    state: StateConfig = field(default_factory=StateConfig)
    log: LogConfig = field(default_factory=LogConfig)
    origins: Mapping[str, str] = field(
        default_factory=lambda: MappingProxyType({}),
        compare=False,
        repr=False,
        metadata={"internal": True},
    )
    doubts: tuple[str, ...] = field(
        default=(), compare=False, repr=False, metadata={"internal": True}
    )

    def placed(self, problems: Sequence[str]) -> list[str]:
        """Return sentences that begin with the path of a value, with its place before each."""
        places = [self.origins.get(problem.partition(":")[0]) for problem in problems]
        return [
            problem if place is None else f"{place}: {problem}"
            for place, problem in zip(places, problems, strict=True)
        ]


def load(
    path: Path | None = None,
    environ: Mapping[str, str] = os.environ,
    host_name: str | None = None,
) -> Config:
    """Return the configuration; later layers win.

    Layers: defaults; what the system says (host name, $STATE_DIRECTORY, $CREDENTIALS_DIRECTORY);
    `path`, else /etc/fastprovd/fastprovd.toml if it exists; conf.d/*.toml beside it, by name;
    environment, such as FASTPROVD_MQTT__HOST.

    Raises:
        ConfigError: with every problem of every layer, each as `file:line: key: what is wrong`.
    """
    layers = Layers(Config)
    layers.add_system(environ, socket.gethostname() if host_name is None else host_name)
    main = DEFAULT_PATH if path is None else path
    layers.add_file(main, must_exist=path is not None)
    layers.add_directory(main.parent / "conf.d")
    layers.add_environment(environ)
    config, found = check_mapping(Config, layers.values)
    problems = layers.problems + [
        f"{layers.origin(problem.path) or main}: {problem.path}: {problem.message}"
        for problem in found
    ]
    if config is None:  # the rules still apply to the sections that are sound
        broken = {problem.path.partition(".")[0] for problem in found}
        sound = {name: value for name, value in layers.values.items() if name not in broken}
        config = check_mapping(Config, sound)[0] or Config()
    config = replace(config, origins=MappingProxyType(dict(layers.origins)))
    problems.extend(rule.sentence(config.origins) for rule in broken_rules(config))
    if problems:
        raise ConfigError(problems)
    found_doubts = [*layers.doubts, *(rule.sentence(config.origins) for rule in doubts(config))]
    return replace(config, doubts=tuple(found_doubts))


def read_password(mqtt: MqttConfig) -> str | None:
    """Return the first line of the password file, or `None` when there is none.

    Raises:
        ConfigError: the file can not be read, or has nothing in its first line.
    """
    if mqtt.password_file is None:
        return None
    try:
        password = mqtt.password_file.read_text("utf-8-sig").partition("\n")[0]
        if password:
            return password
        reason = "its first line is empty"
    except OSError as error:
        reason = str(error.strerror)
    except UnicodeDecodeError:
        reason = "not UTF-8"
    raise ConfigError([f"mqtt.password_file: {mqtt.password_file}: {reason}"])
