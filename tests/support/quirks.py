"""The BlueZ that whole runs are held against."""

from __future__ import annotations

from typing import Final

from fastprovd.emulator.bluez_quirks import BlueZQuirks
from fastprovd.emulator.duplicate_filter import DuplicateFilter

# The daemon still takes a board for gone that the filter hides. Once it does not: BlueZQuirks().
SCENE_QUIRKS: Final = BlueZQuirks(duplicate_filter=DuplicateFilter.OFF)
