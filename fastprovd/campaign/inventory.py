"""Which boards are ours, and the match value that tells the boards so; pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from fastprovd.mesh.device_uuids import parse_board

_NAMED: Final = 5  # boards in a sentence; the rest is counted


@dataclass(frozen=True, slots=True)
class Inventory:
    """`match` is what every UUID of ours begins with; `allow` (if not empty) and `deny` refine it.

    Both hold BD_ADDRs, or the first 2 to 16 octets of Device UUIDs in hex.
    """

    match: bytes
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    @property
    def is_selective(self) -> bool:
        """Whether a board may begin with `match` and not be ours."""
        return bool(self.allow or self.deny)

    def is_ours(self, uuid: bytes) -> bool:
        """Tell whether the board may be provisioned."""
        return (
            uuid.startswith(self.match)
            and (not self.allow or _is_in(uuid, self.allow))
            and not _is_in(uuid, self.deny)
        )

    def match_value(self, heard: Iterable[bytes]) -> bytes:
        """Return the longest match value, at least `match`, that covers every board of ours.

        The firmware's provisioners take whatever begins with it, so the longer the better. Without
        `allow` nobody knows which boards are still to come, and it is `match`. `heard` tells which
        octet order the boards' host uses for BD_ADDRs.
        """
        if not self.allow:
            return self.match
        heard = list(heard)
        entries = [self._beginnings(entry) for entry in self.allow]
        orders_heard = [
            {order for order, prefix in entry.items() if any(u.startswith(prefix) for u in heard)}
            for entry in entries
        ]
        usual = set[int]().union(*orders_heard)
        covered: list[bytes] = []
        for entry, orders in zip(entries, orders_heard, strict=True):
            likely = orders or (usual & entry.keys()) or entry.keys()
            covered += [entry[order] for order in likely]
        return common_beginning(covered) if covered else self.match

    def _beginnings(self, entry: str) -> dict[int, bytes]:
        """Return what UUIDs of ours begin with that `entry` stands for, by octet order."""
        return {
            order: max(prefix, self.match, key=len)
            for order, prefix in enumerate(parse_board(entry))
            if prefix.startswith(self.match) or self.match.startswith(prefix)
        }


def refusal(
    match: bytes,
    ours: Iterable[bytes],
    strangers: Sequence[tuple[bytes, str]],
) -> str | None:
    """Return why a run with this match value must not start, if it must not.

    `strangers` are UUID and BD_ADDR of unprovisioned boards on the air that are not ours.
    """
    taken = [(uuid, address) for uuid, address in strangers if uuid.startswith(match)]
    if not taken:
        return None
    named = ", ".join(f"{address} ({uuid.hex()})" for uuid, address in taken[:_NAMED])
    more = f" and {len(taken) - _NAMED} more" if len(taken) > _NAMED else ""
    remedies = ["power them off", "add them to [mesh] allow", "set [mesh] allow_strangers"]
    longer = common_beginning(ours)
    if len(longer) > len(match) and not any(uuid.startswith(longer) for uuid, _ in taken):
        remedies.insert(1, f'lengthen [mesh] match, such as to "{longer.hex()}"')
    return (
        f"{len(taken)} boards that are not ours would be provisioned too, since their Device UUIDs "
        f"begin with {match.hex()}: {named}{more}; {', '.join(remedies[:-1])}, or {remedies[-1]}"
    )


def common_beginning(octets: Iterable[bytes]) -> bytes:
    """Return what all begin with; nothing when there are none."""
    octets = list(octets)
    first, last = min(octets, default=b""), max(octets, default=b"")
    same = next((n for n, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), None)
    return first[:same] if same is not None else min(first, last, key=len)


def _is_in(uuid: bytes, entries: Iterable[str]) -> bool:
    return any(uuid.startswith(prefix) for entry in entries for prefix in parse_board(entry))
