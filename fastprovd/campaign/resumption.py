"""What the journal of an unfinished run says about the world it left; pure."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from datetime import datetime
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from fastprovd.campaign.air_picture import HeardBoard
from fastprovd.campaign.planner import Plan
from fastprovd.campaign.settings import Method, RunSettings
from fastprovd.campaign.shares import Share
from fastprovd.checking import either
from fastprovd.records import Node, Run, Step, StepKind

# A run that ends the daemon each time shall not do so for ever.
MOST_RESUMPTIONS: Final = 3
# What belongs to the adapter and the machine is as it is configured now.
_NOT_KEPT: Final = frozenset({"links"})


@dataclass(frozen=True, slots=True)
class Offer:
    """An address that left for a board in Provisioning Data; `is_taken`: it was seen to take it."""

    address: int
    board: HeardBoard
    is_taken: bool


@dataclass(frozen=True, slots=True)
class Resumption:
    """An unfinished run as the store has it, with the nodes that it made."""

    run: Run
    nodes: tuple[Node, ...]
    steps: tuple[Step, ...]

    @property
    def is_too_often(self) -> bool:
        """Whether it was resumed so often that it had better end."""
        return len(self._of(StepKind.RESUMED)) >= MOST_RESUMPTIONS

    @property
    def told(self) -> frozenset[int]:
        """Nodes that may have got INFO_SET, and so may provision others."""
        return frozenset(s.address for s in self._of(StepKind.INFO_SET) if s.address is not None)

    @property
    def is_direct(self) -> bool:
        """Whether the run began to provision boards without a Primary."""
        plans = self._of(StepKind.PLAN)
        return bool(plans) and plans[0].address is None

    @property
    def begun(self) -> datetime | None:
        """From when the run's clocks count: the first INFO_SET, or the first address."""
        sent = self._of(StepKind.INFO_SET)
        if self.is_direct:
            sent = self._of(StepKind.ADDRESS_OFFERED)
        return sent[0].at if sent else None

    @property
    def offers(self) -> dict[int, Offer]:
        """The last offer to each board, by address; what was offered before is burnt."""
        taken = {step.address for step in self._of(StepKind.PROVISIONED)}
        last: dict[tuple[bytes, str], Offer] = {}
        for step in self._of(StepKind.ADDRESS_OFFERED):
            address, uuid, device_address = step.address, step.device_uuid, step.device_address
            if address is not None and uuid is not None and device_address is not None:
                board = HeardBoard(uuid, device_address, -127, -math.inf)
                last[uuid, device_address] = Offer(address, board, address in taken)
        return {offer.address: offer for offer in last.values()}

    @property
    def plans(self) -> dict[int, Plan]:
        """What was to be asked of each Primary, by its address."""
        return {
            step.address: Plan(step.address, Share(step.first, step.last), step.node_addr_cnt)
            for step in self._of(StepKind.PLAN)
            if step.address is not None
            and step.first is not None
            and step.last is not None
            and step.node_addr_cnt is not None
        }

    @property
    def ours(self) -> list[Offer]:
        """Boards that we provision ourselves, to be no Primaries."""
        plans = self.plans
        return [offer for address, offer in self.offers.items() if address not in plans]

    @property
    def unfinished(self) -> list[Offer]:
        """Those of ours of which no answer is known."""
        proven = {node.address for node in self.nodes if node.proven}
        return [offer for offer in self.ours if offer.address not in proven]

    @property
    def unoffered(self) -> list[int]:
        """Addresses that were reserved to provision boards directly, and went to nobody."""
        offered = {step.address for step in self._of(StepKind.ADDRESS_OFFERED)}
        return [
            address
            for step in self._of(StepKind.PLAN)
            if step.address is None and step.first is not None and step.last is not None
            for address in range(step.first, step.last + 1)
            if address not in offered
        ]

    @property
    def primaries(self) -> list[tuple[Plan, Offer]]:
        """Primaries to be, or that are; perhaps some did not take their address."""
        offers = self.offers
        # A node that was provisioned for something else may have been made one later.
        return [(plan, offers[a]) for a, plan in self.plans.items() if a in offers]

    def settings(self, configured: RunSettings) -> RunSettings:
        """Return what the run was asked for; what is unknown is as it is configured now.

        All boards that it had heard are expected: most of them are nodes by now.
        """
        begun = self._of(StepKind.BEGUN)
        kept = settings_from_json(begun[0].detail if begun else None, configured)
        expected = max(kept.expected or 0, self.run.heard) or None
        return replace(kept, expected=expected, links=configured.links)

    def _of(self, kind: StepKind) -> list[Step]:
        return [step for step in self.steps if step.kind is kind]


def settings_to_json(settings: RunSettings) -> str:
    """Return settings as a line of JSON, octets in hex."""
    kept = {name: getattr(settings, name) for name in _names()}
    return json.dumps({n: v.hex() if isinstance(v, bytes) else v for n, v in kept.items()})


def settings_from_json(text: str | None, configured: RunSettings) -> RunSettings:
    """Return what `settings_to_json` wrote; names that it does not have are as configured.

    Raises:
        ValueError: it never wrote that.
    """
    found: dict[str, Any] = json.loads(text) if text else {}
    kinds = get_type_hints(RunSettings)
    if not isinstance(found, dict):
        raise ValueError("no JSON object")
    wrong = [name for name in _names() if name in found and not _is_kind(found[name], kinds[name])]
    if wrong:
        raise ValueError(f"{wrong[0]} can not be {found[wrong[0]]!r}")
    known = {name: value for name, value in found.items() if name in _names()}
    for name, decode in (("method", Method), ("match", bytes.fromhex)):
        if name in known:
            known[name] = decode(known[name])
    for name in ("allow", "deny"):
        if name in known:
            known[name] = tuple(known[name])
    return replace(configured, **known)


def _is_kind(value: Any, kind: Any) -> bool:
    """Return whether JSON has a value of this kind so; what is decoded later is text or a list."""
    for arm in either(kind):
        if get_origin(arm) is Literal:
            fits = value in get_args(arm)
        elif get_origin(arm) is tuple:
            fits = isinstance(value, list) and all(isinstance(item, str) for item in value)
        elif arm in (bytes, Method):
            fits = isinstance(value, str)
        else:
            kinds = (int, float) if arm is float else arm
            fits = isinstance(value, kinds) and (arm is bool or not isinstance(value, bool))
        if fits:
            return True
    return False


def _names() -> Iterable[str]:
    return [field.name for field in fields(RunSettings) if field.name not in _NOT_KEPT]
