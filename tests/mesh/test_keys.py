"""Key objects: what derives from them, what they open, and what they hide."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import LocalProtocolError
from fastprovd.mesh.keys import AppKey, DevKey, NetKey, NetworkCredentials
from tests.support.data import vectors

KEY = bytes.fromhex("7dd7364cd842ad18c17c2b820c84c3d6")
CRYPTO = vectors("crypto")
MESSAGES = vectors("messages")


def _crypto(*functions: str) -> list[Any]:
    return [
        pytest.param(entry, id=entry["id"]) for entry in CRYPTO if entry["function"] in functions
    ]


@pytest.mark.parametrize("entry", [p for p in _crypto("k2") if p.values[0]["inputs"]["p"] == "00"])
def test_a_net_key_has_its_sample_nid(entry: dict[str, Any]) -> None:
    """NID of the flooding credentials as published."""
    assert NetKey(bytes.fromhex(entry["inputs"]["n"])).nid == int(entry["output"]["nid"], 16)


@pytest.mark.parametrize("entry", _crypto("k3"))
def test_a_net_key_has_its_sample_network_id(entry: dict[str, Any]) -> None:
    """Network ID as published."""
    net_key = NetKey(bytes.fromhex(entry["inputs"]["n"]))
    assert net_key.network_id.hex() == entry["output"]["network_id"]


@pytest.mark.parametrize("entry", _crypto("k4"))
def test_an_app_key_has_its_sample_aid(entry: dict[str, Any]) -> None:
    """AID as published."""
    assert AppKey(bytes.fromhex(entry["inputs"]["n"])).aid == int(entry["output"]["aid"], 16)


@pytest.mark.parametrize("entry", _crypto("obfuscate"))
def test_obfuscation_as_published(entry: dict[str, Any]) -> None:
    """PECB of the published privacy key hides the published header."""
    inputs = entry["inputs"]
    credentials = NetworkCredentials(0, KEY, bytes.fromhex(inputs["privacy_key"]))
    pecb = credentials.pecb(int(inputs["iv_index"], 16), bytes.fromhex(inputs["privacy_random"]))
    header = bytes.fromhex(inputs["header"])
    hidden = bytes(octet ^ mask for octet, mask in zip(header, pecb, strict=True))
    assert hidden.hex() == entry["output"]["obfuscated"]


@pytest.mark.parametrize("entry", _crypto("aes_ccm"))
def test_aes_ccm_as_published(entry: dict[str, Any]) -> None:
    """Ciphertext and MIC of 4 and 8 octets, with additional data and without."""
    inputs, output = entry["inputs"], entry["output"]
    key, szmic = DevKey(bytes.fromhex(inputs["key"])), int(inputs["mic_len"] == 8)
    nonce, plaintext = bytes.fromhex(inputs["nonce"]), bytes.fromhex(inputs["plaintext"])
    label = bytes.fromhex(inputs["aad"]) or None
    sealed = key.encrypt(nonce, plaintext, szmic=szmic, label=label)
    assert sealed.hex() == output["ciphertext"] + output["mic"]
    assert key.decrypt(nonce, sealed, szmic=szmic, label=label) == plaintext


@pytest.mark.parametrize(
    "entry", [pytest.param(e, id=e["id"]) for e in MESSAGES if "upper" in e and "access" in e]
)
def test_sample_access_payloads_open(entry: dict[str, Any]) -> None:
    """The published key seals and opens the published access payload; another key does not."""
    upper = entry["upper"]
    kind = AppKey if upper["akf"] else DevKey
    key = kind(bytes.fromhex(upper["key"]))
    label = bytes.fromhex(entry["label_uuid"]) if "label_uuid" in entry else None
    nonce, szmic = bytes.fromhex(upper["nonce"]), upper["szmic"]
    payload, pdu = bytes.fromhex(entry["access"]["payload"]), bytes.fromhex(upper["pdu"])
    assert key.encrypt(nonce, payload, szmic=szmic, label=label) == pdu
    assert key.decrypt(nonce, pdu, szmic=szmic, label=label) == payload
    assert DevKey(KEY).decrypt(nonce, pdu, szmic=szmic, label=label) is None


@given(st.binary(max_size=12))
def test_what_is_shorter_than_a_mic_opens_with_no_key(octets: bytes) -> None:
    """Any octets give a payload or `None`, never an error."""
    for szmic in (0, 1):
        opened = AppKey(KEY).decrypt(bytes(13), octets, szmic=szmic)
        assert opened is None or len(opened) == len(octets) - (8 if szmic else 4)
    for ctl in (0, 1):
        opened = NetKey(KEY).decrypt(bytes(13), octets, ctl=ctl)
        assert opened is None or len(opened) == len(octets) - (8 if ctl else 4)


@pytest.mark.parametrize("kind", [NetKey, AppKey, DevKey])
@pytest.mark.parametrize("length", [0, 15, 17, 32])
def test_a_key_has_16_octets(kind: type[NetKey | AppKey | DevKey], length: int) -> None:
    """Another length is our bug; the error tells the length and not the value."""
    with pytest.raises(LocalProtocolError, match=f"16 octets, got {length}") as caught:
        kind(b"\xab" * length)
    assert "ab" * 15 not in str(caught.value)


def test_no_key_shows_itself() -> None:
    """Neither repr nor str of a key object contains key octets."""
    for key in (NetKey(KEY, 3), AppKey(KEY, 3), DevKey(KEY), NetworkCredentials(0x68, KEY, KEY)):
        assert KEY.hex() not in f"{key!r} {key}"
        assert repr(KEY) not in f"{key!r} {key}"
    assert "3" in repr(NetKey(KEY, 3))
    assert "3" in repr(AppKey(KEY, 3))


def test_the_sample_node_identity_hash() -> None:
    """Hash of the published random and address."""
    (entry,) = [e for e in vectors("advertising") if e["type"] == "proxy_node_identity"]
    net_key = NetKey(bytes.fromhex(entry["net_key"]))
    hashed = net_key.node_identity_hash(bytes.fromhex(entry["random"]), int(entry["address"], 16))
    assert hashed.hex() == entry["hash"]


@pytest.mark.parametrize(
    "entry",
    [
        pytest.param(e, id=e["id"])
        for e in vectors("beacons")
        if e["type"] == "secure_network" and "authentication_value_full" in e
    ],
)
def test_the_sample_beacon_authentication(entry: dict[str, Any]) -> None:
    """First eight octets of the published Authentication Value."""
    net_key = NetKey(bytes.fromhex(entry["net_key"]))
    value = net_key.beacon_authentication(bytes.fromhex(entry["message"]))
    assert value.hex() == entry["authentication_value_full"][:16]
