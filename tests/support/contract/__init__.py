"""What bleak and the bearer find behind every door: one list, by topic.

A test module subclasses `DoorContract` and has a fixture `run_on_door`.
"""

from __future__ import annotations

from tests.support.contract.connecting import Connecting
from tests.support.contract.links import Links
from tests.support.contract.losses import Losses
from tests.support.contract.scanning import Scanning
from tests.support.contract.swapping import Swapping


class DoorContract(Losses, Swapping, Links, Connecting, Scanning):
    """The whole list; pytest begins with the last class."""
