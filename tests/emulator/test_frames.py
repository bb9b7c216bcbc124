"""What the boards of one network share about a Network PDU."""

from __future__ import annotations

from dataclasses import replace

from fastprovd.emulator.frames import Network
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import NetKey
from fastprovd.mesh.network import NetworkPdu, encode_network_pdu

PDU = NetworkPdu(0, 7, 5, 0x0001, 0x0005, bytes(8))


def test_relayed_copies_belong_to_one_flood() -> None:
    """SRC, SEQ and IV Index name a message, its TTL does not."""
    network = Network(NetKey(bytes(16)))
    first = network.frame(b"", PDU)
    assert network.frame(b"", PDU.relayed()).flood is first.flood
    assert network.frame(b"", replace(PDU, seq=6)).flood is not first.flood
    assert network.frame(b"", replace(PDU, src=2)).flood is not first.flood


def test_decoding_is_the_same_the_second_time() -> None:
    """A PDU of the network is opened, any other gives None, malformed ones too."""
    network, other = Network(NetKey(bytes(16))), Network(NetKey(b"\x01" * 16))
    raw = encode_network_pdu(PDU, network.net_key)
    for _ in range(2):
        assert network.decode(raw, IvIndex()) == PDU
        assert other.decode(raw, IvIndex()) is None
        assert network.decode(b"\x00" * 5, IvIndex()) is None
