"""Upper transport: sample data under AppKey and DevKey, with both TransMIC sizes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.mesh.keys import AppKey, DevKey
from fastprovd.mesh.upper_transport import MessageContext, decrypt_access, encrypt_access
from tests.support.data import vectors

ACCESS = [entry for entry in vectors("messages") if entry["kind"] == "access"]


@pytest.mark.parametrize("entry", ACCESS, ids=lambda entry: entry["id"])
def test_sample_access_payload_is_sealed_and_opened(entry: dict[str, Any]) -> None:
    """Each published access message becomes its Upper Transport PDU, and back."""
    upper = entry["upper"]
    octets = bytes.fromhex(upper["key"])
    key = AppKey(octets) if upper["akf"] else DevKey(octets)
    if isinstance(key, AppKey):
        assert key.aid == int(upper["aid"], 16)
    context = MessageContext(
        int(upper["seq"], 16),
        int(entry["src"], 16),
        int(entry["dst"], 16),
        int(entry["iv_index"], 16),
        upper["szmic"],
    )
    label = bytes.fromhex(entry["label_uuid"]) if "label_uuid" in entry else None
    payload = bytes.fromhex(entry["access"]["payload"])
    sealed = encrypt_access(key, payload, context, label)
    assert sealed.hex() == upper["pdu"]
    assert decrypt_access(key, sealed, context, label) == payload


@given(st.binary(max_size=384), st.integers(0, 1))
def test_any_input_is_opened_by_no_key(octets: bytes, szmic: int) -> None:
    """Random octets give `None`, never an exception."""
    context = MessageContext(1, 2, 3, 0, szmic)
    assert decrypt_access(DevKey(bytes(16)), octets, context) is None
    assert decrypt_access(AppKey(bytes(16)), octets, context) is None
