"""A mark for tests that need a broker of a kind."""

from __future__ import annotations

import pytest

from fastprovd.publish.broker import find_mosquitto

NEEDS_MOSQUITTO = pytest.mark.skipif(
    find_mosquitto() is None, reason="mosquitto is not installed; apt install mosquitto"
)
