"""Emulated boards behind the gateway's own radio, and a configuration for them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, Literal

from fastprovd.bearers.adapter import BleakBearer
from fastprovd.config import Config, GatewayConfig, MqttConfig, RunConfig, StateConfig
from fastprovd.emulator.air import Air, collides
from fastprovd.emulator.bleak_backend import client_backend, scanner_backend
from fastprovd.emulator.bluez_adapter import EmulatedAdapter
from fastprovd.emulator.board import Board
from fastprovd.emulator.hosts import Flaws


@dataclass(frozen=True)
class World:
    """Boards without flaws on an air, and the adapter that hears them."""

    air: Air
    adapter: EmulatedAdapter
    radio: BleakBearer

    def board(self, address: int) -> Board:
        """Return the board that is node `address`."""
        (found,) = [board for board in self.air.boards if board.unicast_address == address]
        return found


def world(boards: int, seed: int = 1) -> World:
    """Place boards; they boot now."""
    air = Air(seed, collisions=collides(boards))
    for number in range(1, boards + 1):
        air.add_board(f"24:0A:C4:5E:00:{number:02X}", flaws=Flaws.none())
    adapter = EmulatedAdapter(air.adapter(), seed=seed)
    return World(air, adapter, BleakBearer("", scanner_backend(adapter), client_backend(adapter)))


def config(
    directory: Path,
    *,
    expected: int | None = None,
    scan_timeout_s: float = 30.0,
    method: Literal["fast", "direct", "auto"] = "fast",
    resume: bool = True,
    heal: Literal["on_start", "off"] = "off",
    **mqtt: Any,
) -> Config:
    """Return a configuration; without MQTT unless `mqtt` says something about it."""
    return Config(
        gateway=GatewayConfig(id="gw1"),
        mqtt=MqttConfig(enabled=bool(mqtt), **mqtt),
        run=RunConfig(
            method=method,
            expected=expected,
            scan_timeout_s=scan_timeout_s,
            resume=resume,
            heal=heal,
        ),
        state=StateConfig(directory / "state"),
    )


def entropy(seed: int = 1) -> Any:
    """Return a source of octets that is the same every time."""
    return Random(f"gateway/{seed}").randbytes
