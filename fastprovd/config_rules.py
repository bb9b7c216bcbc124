"""What must hold between values of the configuration that are each right, and what is doubtful."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_IROTH
from typing import TYPE_CHECKING, Final

from fastprovd.mesh.addresses import format_address
from fastprovd.mesh.device_uuids import begin_alike, contradictions, parse_board

if TYPE_CHECKING:
    from fastprovd.config import Config

_PLAIN_PORT: Final = 1883
_TLS_PORT: Final = 8883


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule that is broken: the dotted path of the value to change, and what is wrong with it.

    `others` are paths that have a part in it, one of which may be the only one that was written.
    """

    path: str
    message: str
    others: tuple[str, ...] = ()

    def sentence(self, origins: Mapping[str, str]) -> str:
        """Return it with the place, out of `origins`, in which a part of it is written."""
        paths = (self.path, self.path.partition("[")[0], *self.others)
        place = next((origins[path] for path in paths if path in origins), None)
        return f"{'' if place is None else f'{place}: '}{self.path}: {self.message}"


def broken_rules(config: Config) -> Iterator[Rule]:
    """Yield what can not work."""
    yield from _addresses(config)
    yield from _boards(config)
    yield from _broker(config)
    ceiling = config.bluetooth.links_ceiling
    if ceiling is not None and (config.run.primaries or 1) > ceiling:
        yield Rule(
            "run.primaries",
            f"{config.run.primaries} need as many links, and [bluetooth] max_links is {ceiling}",
            ("bluetooth.max_links",),
        )


def doubts(config: Config) -> Iterator[Rule]:
    """Yield what works, and most likely is not meant."""
    mqtt, run = config.mqtt, config.run
    for path, file in (("mqtt.password_file", mqtt.password_file), ("mqtt.tls.key", mqtt.tls.key)):
        if file is not None and _is_public(file):
            yield Rule(path, f"everybody on this machine can read {file}; chmod o= it")
    if mqtt.tls.enabled and mqtt.port == _PLAIN_PORT:
        yield Rule(
            "mqtt.port",
            f"{_PLAIN_PORT} is usually without TLS, {_TLS_PORT} with it, and mqtt.tls.enabled is "
            "true",
            ("mqtt.tls.enabled",),
        )
    if not mqtt.tls.enabled and mqtt.port == _TLS_PORT:
        yield Rule("mqtt.port", f"{_TLS_PORT} is usually with TLS, and mqtt.tls.enabled is false")
    for name in ("scan_timeout_s", "proxy_timeout_s", "settle_s"):
        seconds = getattr(run, name)
        if seconds >= run.run_timeout_s:
            yield Rule(
                f"run.{name}",
                f"{seconds:g} s are never reached, since run_timeout_s is {run.run_timeout_s:g} s",
                ("run.run_timeout_s",),
            )
    for number, entry in enumerate(config.mesh.deny):
        if not any(begin_alike(prefix, config.mesh.match) for prefix in parse_board(entry)):
            yield Rule(
                f"mesh.deny[{number}]",
                f"no Device UUID of {entry} begins with mesh.match {config.mesh.match.hex()}, so "
                "it changes nothing",
                ("mesh.match",),
            )


def _addresses(config: Config) -> Iterator[Rule]:
    mesh, run, shown = config.mesh, config.run, format_address
    if mesh.unicast_min > mesh.unicast_max:
        yield Rule(
            "mesh.unicast_max",
            f"{shown(mesh.unicast_max)} is below unicast_min {shown(mesh.unicast_min)}",
            ("mesh.unicast_min",),
        )
        return
    if mesh.unicast_min <= mesh.provisioner_address <= mesh.unicast_max:
        yield Rule(
            "mesh.provisioner_address",
            f"{shown(mesh.provisioner_address)} is ours, it must lie outside of unicast_min.."
            f"unicast_max ({shown(mesh.unicast_min)}..{shown(mesh.unicast_max)})",
            ("mesh.unicast_min", "mesh.unicast_max"),
        )
    capacity = mesh.unicast_max - mesh.unicast_min + 1
    if run.expected is not None and run.expected > capacity:
        yield Rule(
            "run.expected",
            f"{run.expected} boards do not fit into the {capacity} addresses of "
            "mesh.unicast_min..unicast_max",
            ("mesh.unicast_min", "mesh.unicast_max"),
        )


def _boards(config: Config) -> Iterator[Rule]:
    mesh = config.mesh
    for problem in contradictions(mesh.match, mesh.allow, mesh.deny):
        yield Rule(f"mesh.{problem.path}", problem.message, ("mesh.deny", "mesh.match"))


def _broker(config: Config) -> Iterator[Rule]:
    mqtt, tls = config.mqtt, config.mqtt.tls
    if mqtt.password_file is not None and not mqtt.username:
        yield Rule("mqtt.username", "a password needs a user name", ("mqtt.password_file",))
    if (tls.cert is None) != (tls.key is None):
        given, missing = ("cert", "key") if tls.key is None else ("key", "cert")
        yield Rule(f"mqtt.tls.{missing}", f"{given} is nothing without it", (f"mqtt.tls.{given}",))
    if not tls.enabled and (tls.ca or tls.cert or tls.key):
        yield Rule(
            "mqtt.tls.enabled",
            "false, but certificates are given; set it to true",
            ("mqtt.tls.ca", "mqtt.tls.cert", "mqtt.tls.key"),
        )


def _is_public(file: Path) -> bool:
    try:
        return bool(file.stat().st_mode & S_IROTH)
    except OSError:  # whoever reads it says so
        return False
