"""A bound for what anybody on the air can make us remember."""

from __future__ import annotations

from typing import TypeVar

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


def keep_latest(kept: dict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    """Put it last; of more than `most` forget the one that was not heard for longest."""
    kept.pop(key, None)
    kept[key] = value
    if len(kept) > most:
        del kept[next(iter(kept))]
