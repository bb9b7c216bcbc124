"""The firmware of the boards: its manifest, and esptool as a program."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from fastprovd.checking import check_mapping, setting
from fastprovd.errors import ConfigError
from hwbench.config import BoardConfig

_FLASH_S: Final = 180.0  # 1.5 MB at 460800 baud take half a minute
_BAUD: Final = "460800"
# Where every partition table of ESP-IDF has NVS.
_NVS: Final = ("0x9000", "0x6000")
# esp_app_desc_t: magic word, and where the SHA-256 of the ELF file is.
APP_DESC_MAGIC: Final = bytes.fromhex("3254cdab")
ELF_SHA256_AT: Final = 144


class FirmwareMissing(Exception):
    """A binary or a program that flashing needs is not there; the sentence says which."""


@dataclass(frozen=True, slots=True)
class Image:
    """One `[[image]]`: a file at an offset of the flash; name and chip say what it is part of."""

    name: str = setting()
    chip: str = setting()
    file: Path = setting()
    offset: int = setting(low=0, high=0x3FFFFFF, hexadecimal=True)
    sha256: str = setting(pattern="[0-9a-f]{64}", expected="64 hex digits in small letters")


def load_manifest(path: Path) -> tuple[Image, ...]:
    """Read a manifest.toml; files in it are relative to it.

    Raises:
        ConfigError: it can not be read, or every mistake in it.
    """
    try:
        raw = tomllib.loads(path.read_text("utf-8-sig"))
    except (OSError, ValueError) as error:
        raise ConfigError([f"{path}: {error}"]) from error
    tables = raw.get("image")
    if set(raw) != {"image"} or not isinstance(tables, list):
        raise ConfigError([f"{path}: expected [[image]] tables and nothing else"])
    images, mistakes = [], []
    for number, table in enumerate(tables, 1):
        image, problems = check_mapping(Image, table, f"image[{number}]")
        mistakes += [f"{path}: {problem.path}: {problem.message}" for problem in problems]
        if image is not None:
            images.append(_placed(image, path.parent))
    if mistakes:
        raise ConfigError(mistakes)
    return tuple(images)


def _placed(image: Image, directory: Path) -> Image:
    return Image(image.name, image.chip, directory / image.file, image.offset, image.sha256)


def images_for(board: BoardConfig, manifest: Iterable[Image]) -> tuple[Image, ...]:
    """Return what belongs onto a board, each file there and as the manifest says.

    Raises:
        FirmwareMissing: the manifest has nothing for it, or a file is missing or another one.
    """
    images = tuple(
        image for image in manifest if (image.name, image.chip) == (board.firmware, board.chip)
    )
    if not images:
        raise FirmwareMissing(f"the manifest has no firmware {board.firmware} for {board.chip}")
    for image in images:
        if not image.file.is_file():
            raise FirmwareMissing(f"{image.file} is missing: build it, or pass --skip-autoflash")
        if hashlib.sha256(image.file.read_bytes()).hexdigest() != image.sha256:
            raise FirmwareMissing(f"{image.file} is not the file whose SHA-256 the manifest has")
    return images


def flash(
    plan: Mapping[BoardConfig, tuple[Image, ...]], *, erase_nvs: bool, log_directory: Path
) -> None:
    """Flash every board of the plan, all ports at once; esptool's words go into `log_directory`.

    Raises:
        FirmwareMissing: there is no esptool.
        subprocess.CalledProcessError: esptool failed.
    """
    esptool = find_esptool()
    if esptool is None:
        raise FirmwareMissing("esptool is missing: pip install esptool, or pass --skip-autoflash")
    with ThreadPoolExecutor(max_workers=len(plan)) as pool:
        jobs = [
            pool.submit(_flash_one, esptool, board, images, erase_nvs, log_directory)
            for board, images in plan.items()
        ]
    for job in jobs:
        job.result()


def find_esptool() -> str | None:
    """Return the program, the one beside this Python first."""
    return shutil.which("esptool", path=str(Path(sys.executable).parent)) or shutil.which("esptool")


def _flash_one(
    esptool: str, board: BoardConfig, images: tuple[Image, ...], erase_nvs: bool, logs: Path
) -> None:
    base = [esptool, "--chip", board.chip, "--port", board.port, "--baud", _BAUD]
    commands = [[*base, "erase-region", *_NVS]] if erase_nvs else []
    files = [part for image in images for part in (hex(image.offset), str(image.file))]
    commands.append([*base, "write-flash", *files])
    with (logs / f"esptool-{board.id}.log").open("w", encoding="utf-8") as log:
        for command in commands:
            subprocess.run(
                command, check=True, stdout=log, stderr=subprocess.STDOUT, timeout=_FLASH_S
            )


def elf_sha256(image: bytes) -> str | None:
    """Return what an application image says it was linked as; None if it is none."""
    at = image.find(APP_DESC_MAGIC)
    digest = image[at + ELF_SHA256_AT : at + ELF_SHA256_AT + 32]
    return digest.hex() if at >= 0 and len(digest) == 32 else None


def application_sha256(images: Iterable[Image]) -> str | None:
    """Return the ELF's SHA-256 out of the image that holds the application."""
    found: list[Any] = [elf_sha256(image.file.read_bytes()) for image in images]
    return next((digest for digest in reversed(found) if digest is not None), None)
