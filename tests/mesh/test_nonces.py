"""The four nonces against sample messages."""

from __future__ import annotations

from typing import Any

import pytest

from fastprovd.mesh.nonces import application_nonce, device_nonce, network_nonce, proxy_nonce
from tests.support.data import vectors


def _number(entry: dict[str, Any], name: str) -> int:
    return int(entry[name], 16)


NETWORK = [
    pytest.param(entry, row, id=f"{entry['id']}-{row['seq']}")
    for entry in vectors("messages")
    for row in entry["network"]
]
UPPER = [pytest.param(entry, id=entry["id"]) for entry in vectors("messages") if "upper" in entry]
PROXY = [pytest.param(entry, id=entry["id"]) for entry in vectors("proxy_config")]


@pytest.mark.parametrize(("entry", "row"), NETWORK)
def test_sample_network_nonces(entry: dict[str, Any], row: dict[str, Any]) -> None:
    """The network nonce of each sample PDU is the published one."""
    nonce = network_nonce(
        entry["ctl"] << 7 | _number(entry, "ttl"),
        _number(row, "seq"),
        _number(entry, "src"),
        _number(entry, "iv_index"),
    )
    assert nonce.hex() == row["nonce"]


@pytest.mark.parametrize("entry", UPPER)
def test_sample_application_and_device_nonces(entry: dict[str, Any]) -> None:
    """The nonce of each sample access message is the published one, by its kind of key."""
    upper = entry["upper"]
    make = application_nonce if upper["akf"] else device_nonce
    nonce = make(
        upper["szmic"],
        int(upper["seq"], 16),
        _number(entry, "src"),
        _number(entry, "dst"),
        _number(entry, "iv_index"),
    )
    assert nonce.hex() == upper["nonce"]


@pytest.mark.parametrize("entry", PROXY)
def test_sample_proxy_nonces(entry: dict[str, Any]) -> None:
    """The proxy nonce of each sample configuration message is the published one."""
    nonce = proxy_nonce(_number(entry, "seq"), _number(entry, "src"), _number(entry, "iv_index"))
    assert nonce.hex() == entry["nonce"]


@pytest.mark.parametrize(("szmic", "second"), [(0, "00"), (1, "80")])
def test_the_second_octet_of_upper_nonces_is_the_mic_size(szmic: int, second: str) -> None:
    """A 64-bit TransMIC sets the top bit, and the first octet tells the key kind apart."""
    assert application_nonce(szmic, 0x010203, 0x0405, 0x0607, 0x08090A0B).hex() == (
        f"01{second}0102030405060708090a0b"
    )
    assert device_nonce(szmic, 0x010203, 0x0405, 0x0607, 0x08090A0B).hex() == (
        f"02{second}0102030405060708090a0b"
    )
