"""Text files as people's editors write them."""

from __future__ import annotations

import codecs
from pathlib import Path

import pytest

from fastprovd.text_files import has_byte_order_mark, read_text


@pytest.mark.parametrize(
    "octets",
    ["é\nb\n".encode(), codecs.BOM_UTF8 + "é\nb\n".encode(), "\ufeffé\r\nb\r\n".encode()],
)
def test_utf_8_is_read_with_and_without_a_mark(tmp_path: Path, octets: bytes) -> None:
    """Windows ends lines its own way, too."""
    file = tmp_path / "text"
    file.write_bytes(octets)
    assert read_text(file) == "é\nb\n"


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-be", "utf-16-le", "utf-32-le"])
def test_utf_16_is_named(tmp_path: Path, encoding: str) -> None:
    """With a mark and without one."""
    file = tmp_path / "text"
    for mark in ("", "\ufeff"):
        file.write_bytes((mark + "secret\n").encode(encoding))
        with pytest.raises(ValueError, match=r"UTF-16.*save it as UTF-8"):
            read_text(file)


def test_what_is_no_text_is_said(tmp_path: Path) -> None:
    """Nothing of it is shown: it may be a password."""
    file = tmp_path / "text"
    file.write_bytes("é".encode("latin-1"))
    with pytest.raises(ValueError, match=r"^not UTF-8$"):
        read_text(file)


def test_a_mark_is_seen() -> None:
    """Each kind of it, and nothing else."""
    assert has_byte_order_mark(b"\xef\xbb\xbf-----BEGIN")
    assert has_byte_order_mark("-".encode("utf-16"))
    assert not has_byte_order_mark(b"-----BEGIN")
