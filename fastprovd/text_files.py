"""Text that people write, with whatever their editor puts before it."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import Final

_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_IS_UTF_16: Final = "not UTF-8 but UTF-16, as some editors of Windows write it: save it as UTF-8"


def read_text(path: Path) -> str:
    """Return the UTF-8 of a file, its lines ended by a newline; a byte order mark is no part of it.

    Raises:
        OSError: it can not be read.
        ValueError: it is no UTF-8; the sentence says what it seems to be.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        with path.open("rb") as file:
            is_utf_16 = file.read(2) in _UTF_16
        raise ValueError(_IS_UTF_16 if is_utf_16 else "not UTF-8") from None
    if "\0" in text:  # what UTF-16 without a mark looks like
        raise ValueError(_IS_UTF_16)
    return text


def has_byte_order_mark(octets: bytes) -> bool:
    """Return whether a mark stands before what only reads ASCII, such as OpenSSL."""
    return octets.startswith((codecs.BOM_UTF8, *_UTF_16))
