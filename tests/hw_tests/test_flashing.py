"""Only what the manifest names is flashed, by esptool as a program."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from fastprovd.errors import ConfigError
from hwbench import flashing
from hwbench.config import BoardConfig
from hwbench.flashing import FirmwareMissing, Image

EXAMPLE = Path(__file__).parents[2] / "hw-tests" / "firmware" / "manifest.example.toml"
BINARY = b"firmware"


def board(board_id: str = "n01", chip: str = "esp32c3") -> BoardConfig:
    return BoardConfig(board_id, f"/dev/{board_id}", chip, "24:0A:C4:00:00:01", firmware="demo")


def image(file: Path, offset: int = 0x10000, chip: str = "esp32c3") -> Image:
    return Image("demo", chip, file, offset, hashlib.sha256(BINARY).hexdigest())


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    path = tmp_path / "demo.bin"
    path.write_bytes(BINARY)
    return path


@pytest.fixture
def esptool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a program that only writes down how it was called be esptool."""
    calls = tmp_path / "calls"
    program = tmp_path / "esptool"
    program.write_text(f'#!/bin/sh\necho "$@" >> {calls}\necho done\ntest "$4" != /dev/bad\n')
    program.chmod(0o755)
    monkeypatch.setattr(flashing, "find_esptool", lambda: str(program))
    return calls


def test_the_example_is_a_manifest() -> None:
    """Files are relative to the manifest."""
    (only,) = flashing.load_manifest(EXAMPLE)
    assert (only.name, only.chip, only.offset) == ("fast_prov_server", "esp32c3", 0)
    assert only.file.parent == EXAMPLE.parent


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", "expected [[image]] tables and nothing else"),
        ("[image]", "expected [[image]] tables and nothing else"),
        ('[[image]]\nname = "x"\nsha256 = "0"', "image[1].sha256: expected 64 hex digits"),
        ('[[image]]\nname = "x"', "image[1].offset: required key is missing"),
        ("[[image", "Expected"),
    ],
)
def test_mistakes_in_a_manifest_are_named(tmp_path: Path, text: str, named: str) -> None:
    """File, key and what is allowed."""
    path = tmp_path / "manifest.toml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        flashing.load_manifest(path)
    assert str(path) in str(error.value)
    assert named in str(error.value)


def test_a_board_gets_the_images_of_its_chip(binary: Path) -> None:
    """All of its firmware's, and those of no other chip."""
    mine = (image(binary), image(binary, 0x0))
    assert flashing.images_for(board(), (*mine, image(binary, chip="esp32"))) == mine


def test_what_is_missing_is_named(tmp_path: Path, binary: Path) -> None:
    """No image for the chip, no file, another file."""
    with pytest.raises(FirmwareMissing, match="no firmware demo for esp32c3"):
        flashing.images_for(board(), [image(binary, chip="esp32")])
    with pytest.raises(FirmwareMissing, match=r"none\.bin is missing: build it"):
        flashing.images_for(board(), [image(tmp_path / "none.bin")])
    binary.write_bytes(b"something else")
    with pytest.raises(FirmwareMissing, match="is not the file whose SHA-256"):
        flashing.images_for(board(), [image(binary)])


def test_every_board_is_flashed(tmp_path: Path, binary: Path, esptool: Path) -> None:
    """One call per board, with all images at their offsets; its words are kept."""
    images = (image(binary, 0x0), image(binary))
    plan = {board("n01"): images, board("n02", "esp32"): images[:1]}
    flashing.flash(plan, erase_nvs=False, log_directory=tmp_path)
    assert sorted(esptool.read_text().splitlines()) == [
        f"--chip esp32 --port /dev/n02 --baud 460800 write-flash 0x0 {binary}",
        f"--chip esp32c3 --port /dev/n01 --baud 460800 write-flash 0x0 {binary} 0x10000 {binary}",
    ]
    assert (tmp_path / "esptool-n01.log").read_text() == "done\n"


def test_nvs_is_erased_first(tmp_path: Path, binary: Path, esptool: Path) -> None:
    """What a board has stored goes before the firmware comes."""
    flashing.flash({board(): (image(binary),)}, erase_nvs=True, log_directory=tmp_path)
    erased, written = esptool.read_text().splitlines()
    assert erased.endswith("erase-region 0x9000 0x6000")
    assert "write-flash" in written


def test_a_board_that_can_not_be_flashed(tmp_path: Path, binary: Path, esptool: Path) -> None:
    """It fails, after the others were flashed."""
    plan = {board("bad"): (image(binary),), board("n02"): (image(binary),)}
    with pytest.raises(subprocess.CalledProcessError):
        flashing.flash(plan, erase_nvs=False, log_directory=tmp_path)
    assert "/dev/n02" in esptool.read_text()


def test_without_esptool(tmp_path: Path, binary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a program of its own, and may be missing."""
    monkeypatch.setattr(flashing, "find_esptool", lambda: None)
    with pytest.raises(FirmwareMissing, match="pip install esptool"):
        flashing.flash({board(): (image(binary),)}, erase_nvs=False, log_directory=tmp_path)


def test_the_hash_of_an_application(tmp_path: Path, binary: Path) -> None:
    """It is found in the description that each application image has, wherever that is."""
    described = flashing.APP_DESC_MAGIC.ljust(flashing.ELF_SHA256_AT, b"\0") + bytes(range(32))
    assert flashing.elf_sha256(bytes(0x10020) + described + b"more") == bytes(range(32)).hex()
    assert flashing.elf_sha256(described[:-1]) is None
    assert flashing.elf_sha256(BINARY) is None
    application = tmp_path / "app.bin"
    application.write_bytes(described)
    found = flashing.application_sha256([image(binary), image(application)])
    assert found == bytes(range(32)).hex()
