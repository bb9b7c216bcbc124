"""Provisioning PDUs: sample data, lengths, fuzz."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import NetKey
from fastprovd.mesh.provisioning.pdus import (
    PDUS,
    Algorithm,
    Algorithms,
    Capabilities,
    Complete,
    Confirmation,
    Data,
    Failed,
    FailureCode,
    Invite,
    PduType,
    ProvisioningData,
    PublicKey,
    Random,
    Start,
    encode_pdu,
    split_type,
)
from tests.support.data import vectors
from tests.support.provisioning import decode_pdu

LENGTHS: dict[PduType, tuple[int, ...]] = {
    PduType.INVITE: (1,),
    PduType.CAPABILITIES: (11,),
    PduType.START: (5,),
    PduType.PUBLIC_KEY: (64,),
    PduType.CONFIRMATION: (16, 32),
    PduType.RANDOM: (16, 32),
    PduType.DATA: (33,),
    PduType.COMPLETE: (0,),
    PduType.FAILED: (1,),
}
CLASSES = {
    "invite": Invite,
    "capabilities": Capabilities,
    "start": Start,
    "public_key": PublicKey,
    "confirmation": Confirmation,
    "random": Random,
    "data": Data,
    "complete": Complete,
}
(SAMPLE,) = vectors("provisioning")


@pytest.mark.parametrize(
    "step", SAMPLE["pdus"], ids=lambda step: f"{step['sender']}-{step['name']}"
)
def test_the_sample_session_is_decoded_and_encoded(step: dict[str, str]) -> None:
    """Each PDU of the sample session has the expected class and encodes to its octets."""
    octets = bytes.fromhex(step["pdu"])
    pdu = decode_pdu(octets)
    assert type(pdu) is CLASSES[step["name"]]
    assert encode_pdu(pdu) == octets


def test_the_capabilities_of_the_board_are_read() -> None:
    """The board's Capabilities offer both algorithms and no OOB."""
    pdu = decode_pdu(bytes.fromhex("010100030000000000000000"))
    assert pdu == Capabilities(1, Algorithms.CMAC_AES128 | Algorithms.HMAC_SHA256)


def test_unknown_capability_bits_are_kept() -> None:
    """Bits and numbers of later versions neither harm nor vanish."""
    octets = bytes.fromhex("0102fffdff07ffffffffffff")
    pdu = decode_pdu(octets)
    assert isinstance(pdu, Capabilities)
    assert not pdu.algorithms.offers(Algorithm.HMAC_SHA256)
    assert pdu.algorithms.offers(Algorithm.CMAC_AES128)
    assert encode_pdu(pdu) == octets


def test_a_device_without_elements_is_refused() -> None:
    """Zero elements can not be addressed."""
    with pytest.raises(DecodeError, match="at least one element"):
        decode_pdu(bytes.fromhex("010000030000000000000000"))


@pytest.mark.parametrize("pdu_type", LENGTHS)
def test_every_length_but_the_right_one_is_refused(pdu_type: PduType) -> None:
    """Truncations and surplus octets raise DecodeError, for each type."""
    for length in range(80):
        octets = bytes([pdu_type]) + b"\x01" * length
        if length in LENGTHS[pdu_type]:
            assert encode_pdu(decode_pdu(octets)) == octets
        else:
            with pytest.raises(DecodeError, match=f"got {length}"):
                decode_pdu(octets)


def test_an_empty_pdu_and_reserved_types_are_refused() -> None:
    """Nothing, and a type from 0x0A, raise DecodeError before any length is looked at."""
    for octets in (b"", b"\x0a", b"\xff" + bytes(16)):
        with pytest.raises(DecodeError):
            split_type(octets)


def test_input_complete_is_known_but_not_spoken() -> None:
    """A type of OOB authentication has no class here."""
    assert split_type(b"\x04") == (PduType.INPUT_COMPLETE, b"")
    assert set(PDUS) == set(PduType) - {PduType.INPUT_COMPLETE}


@given(st.integers(0, 10), st.binary(max_size=70))
def test_any_octets_give_a_pdu_or_a_decode_error(pdu_type: int, parameters: bytes) -> None:
    """Whatever decodes encodes to the same octets, leading zeros included."""
    octets = bytes([pdu_type]) + parameters
    try:
        pdu = decode_pdu(octets)
    except DecodeError:
        return
    assert encode_pdu(pdu) == octets


@given(st.integers(0, 0xFF))
def test_a_failure_code_keeps_its_number(code: int) -> None:
    """Codes of the list have their name, all others a readable one."""
    failed = Failed.decode_parameters(bytes([code]))
    assert failed.code == code
    assert failed.code.name.startswith("UNKNOWN_0x") == (code > 0x09)
    assert encode_pdu(failed) == bytes([9, code])


@pytest.mark.parametrize("code", [-1, 0x100, "x"])
def test_what_is_no_octet_is_no_failure_code(code: Any) -> None:
    """Only an octet can be a failure code."""
    with pytest.raises(ValueError, match="not a valid FailureCode"):
        FailureCode(code)


def test_numbers_that_do_not_fit_are_our_bug() -> None:
    """Attention and Capabilities beyond their fields are not sent."""
    for pdu in (Invite(256), Invite(-1), Capabilities(256, Algorithms(1)), Start(256)):
        with pytest.raises(LocalProtocolError):
            encode_pdu(pdu)


def test_the_sample_provisioning_data_is_encoded() -> None:
    """The 25 octets of the sample come from its fields, and give them back."""
    fields = SAMPLE["data"]
    data = ProvisioningData(
        NetKey(bytes.fromhex(fields["net_key"]), int(fields["net_key_index"], 16)),
        int(fields["unicast_address"], 16),
        IvIndex(int(fields["iv_index"], 16)),
    )
    octets = bytes.fromhex(SAMPLE["data_plaintext"])
    assert data.encode() == octets
    decoded = ProvisioningData.decode(octets)
    assert decoded.net_key.octets == data.net_key.octets
    assert decoded.net_key.index == data.net_key.index
    assert (decoded.unicast_address, decoded.iv_index, decoded.key_refresh) == (
        data.unicast_address,
        data.iv_index,
        False,
    )


@pytest.mark.parametrize(
    ("flags", "key_refresh", "iv_update"),
    [(0, False, False), (1, True, False), (2, False, True), (3, True, True)],
)
def test_both_flags_travel(flags: int, key_refresh: bool, iv_update: bool) -> None:
    """Bit 0 is Key Refresh, bit 1 IV Update."""
    data = ProvisioningData(NetKey(bytes(16)), 5, IvIndex(7, iv_update), key_refresh)
    assert data.encode()[18] == flags
    decoded = ProvisioningData.decode(data.encode())
    assert (decoded.key_refresh, decoded.iv_index) == (key_refresh, IvIndex(7, iv_update))


@pytest.mark.parametrize("address", [0x0000, 0x8000, 0xC000, 0xFFFF])
def test_an_address_that_is_no_unicast_is_our_bug(address: int) -> None:
    """A board would take it and have no address."""
    with pytest.raises(LocalProtocolError, match="unicast"):
        ProvisioningData(NetKey(bytes(16)), address).encode()


def test_the_device_takes_any_address_and_no_other_length() -> None:
    """The firmware does not look at the address; 24 or 26 octets are malformed."""
    assert ProvisioningData.decode(bytes(25)).unicast_address == 0
    for length in (0, 24, 26):
        with pytest.raises(DecodeError, match=f"got {length}"):
            ProvisioningData.decode(bytes(length))


def test_provisioning_data_shows_no_key() -> None:
    """The repr tells the address and nothing of the NetKey."""
    text = repr(ProvisioningData(NetKey(bytes(range(16))), 5))
    assert "unicast_address=5" in text
    assert "NetKey" not in text
