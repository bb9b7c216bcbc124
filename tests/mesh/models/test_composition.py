"""Composition Data Page 0."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.models.composition import CompositionData, Element, Model
from tests.support.data import vectors

BOARD = bytes.fromhex("e502000000003c00030000000302000001000010e5020100e5020000")

uint16 = st.integers(0, 0xFFFF)
elements = st.builds(
    lambda location, sig, vendor: Element(location, (*sig, *vendor)),
    uint16,
    st.lists(st.builds(Model, uint16), max_size=4),
    st.lists(st.builds(Model, uint16, uint16), max_size=4),
)
compositions = st.builds(
    CompositionData,
    uint16,
    uint16,
    uint16,
    uint16,
    uint16,
    st.lists(elements, min_size=1, max_size=4).map(tuple),
)


def test_the_sample_page_is_parsed_as_published() -> None:
    """Every field of the specification's Page 0 sample comes out, and it encodes again."""
    (entry,) = [e for e in vectors("access_data") if e["type"] == "composition_page_0"]
    parsed = entry["parsed"]
    page = CompositionData.decode(bytes.fromhex(entry["data"]))
    for name in ("cid", "pid", "vid", "crpl", "features"):
        assert getattr(page, name) == int(parsed[name], 16)
    assert len(page.elements) == len(parsed["elements"])
    for element, expected in zip(page.elements, parsed["elements"], strict=True):
        assert element.location == int(expected["loc"], 16)
        assert element.models == tuple(
            [Model(int(model, 16)) for model in expected["sig_models"]]
            + [Model(int(model[4:], 16), int(model[:4], 16)) for model in expected["vendor_models"]]
        )
    assert page.encode() == bytes.fromhex(entry["data"])


def test_the_board_shows_its_five_models() -> None:
    """The firmware's page has one element with three models of the SIG and two of 0x02E5."""
    page = CompositionData.decode(BOARD)
    assert (page.cid, page.crpl, page.features) == (0x02E5, 60, 3)
    assert page.elements == (
        Element(
            0,
            (
                Model(0x0000),
                Model(0x0001),
                Model(0x1000),
                Model(0x0001, 0x02E5),
                Model(0x0000, 0x02E5),
            ),
        ),
    )


@given(compositions)
def test_every_page_comes_back(page: CompositionData) -> None:
    """Decoding what was encoded gives the same elements and models."""
    assert CompositionData.decode(page.encode()) == page


def test_every_truncation_is_refused() -> None:
    """A page cut anywhere raises DecodeError."""
    for length in range(len(BOARD)):
        with pytest.raises(DecodeError):
            CompositionData.decode(BOARD[:length])


def test_a_second_element_must_be_whole() -> None:
    """An element header or a model list that is cut raises DecodeError."""
    for rest in ("00", "000100", "00000100", "0000000100", "00000001e50201"):
        with pytest.raises(DecodeError, match="cut"):
            CompositionData.decode(BOARD + bytes.fromhex(rest))


@given(st.binary(max_size=80))
def test_any_octets_give_a_page_or_a_decode_error(data: bytes) -> None:
    """Whatever decodes encodes to the same octets."""
    try:
        page = CompositionData.decode(data)
    except DecodeError:
        return
    assert page.encode() == data


def test_a_number_that_does_not_fit_is_our_bug() -> None:
    """Neither a header field nor a model number may exceed 16 bits."""
    for page in (
        CompositionData(0x10000, 0, 0, 0, 0, (Element(0, ()),)),
        CompositionData(0, 0, 0, 0, 0, (Element(0, (Model(0x10000),)),)),
        CompositionData(0, 0, 0, 0, 0, (Element(0, (Model(0),) * 256),)),
    ):
        with pytest.raises(LocalProtocolError, match="Composition Data"):
            page.encode()
