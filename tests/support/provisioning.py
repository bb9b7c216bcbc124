"""The provisioning sessions of the recordings, with the keys that recompute them."""

from __future__ import annotations

from dataclasses import dataclass

from fastprovd.errors import DecodeError
from fastprovd.mesh.crypto import EcdhKeyPair
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import NetKey
from fastprovd.mesh.provisioning.pdus import (
    PDUS,
    Algorithm,
    Pdu,
    PduType,
    ProvisioningData,
    split_type,
)
from tests.support.data import RECORDING_NAMES, recording


def decode_pdu(pdu: bytes) -> Pdu:
    """Return the PDU, of whatever type a session without OOB has; raises DecodeError."""
    pdu_type, parameters = split_type(pdu)
    if pdu_type not in PDUS:
        raise DecodeError(f"{pdu_type.name} belongs to OOB authentication")
    return PDUS[pdu_type].decode_parameters(parameters)


@dataclass(frozen=True)
class Session:
    """One recorded session that was completed: PDUs in order, `sent` by the Top or by the board."""

    name: str
    algorithm: Algorithm
    private_key: bytes
    random: bytes
    attention_duration_s: int
    data: ProvisioningData
    dev_key: bytes
    pdus: tuple[tuple[bool, bytes], ...]

    @property
    def key_pair(self) -> EcdhKeyPair:
        """The Top's key pair."""
        return EcdhKeyPair.from_octets(self.private_key)

    @property
    def random_32(self) -> bytes:
        """The Top's random value, filled up where the algorithm takes only 16 octets."""
        return self.random.ljust(32, b"\xa5")

    def of(self, pdu_type: PduType, *, sent: bool) -> bytes:
        """Return the one PDU of this type and side."""
        (found,) = [pdu for by_top, pdu in self.pdus if by_top is sent and pdu[0] == pdu_type]
        return found


def _sessions(name: str) -> list[Session]:
    header = recording(name).header
    net_key = NetKey(bytes.fromhex(header["netkey"]), header["netkey_index"])
    sessions = []
    for device in header["devices"]:
        pdus = tuple(
            (event["ev"] == "proxy_tx", bytes.fromhex(event["pdu"]))
            for event in recording(name).of("proxy_tx", "proxy_rx")
            if event["type"] == 3 and event["addr"] == device["bd_addr"]
        )
        keys = device["provisioning"]
        sessions.append(
            Session(
                name=f"{name}-{device['unicast']}",
                algorithm=Algorithm(keys["algorithm"]),
                private_key=bytes.fromhex(keys["private_key"]),
                random=bytes.fromhex(keys["random"]),
                attention_duration_s=keys["attention"],
                data=ProvisioningData(
                    net_key,
                    int(device["unicast"], 16),
                    IvIndex(header["iv_index"], bool(header["iv_update"])),
                    bool(header["key_refresh"]),
                ),
                dev_key=bytes.fromhex(device["devkey"]),
                pdus=pdus,
            )
        )
    return sessions


SESSIONS = [session for name in RECORDING_NAMES for session in _sessions(name)]
