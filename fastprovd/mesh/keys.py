"""NetKey, AppKey, DevKey; no repr shows a key (Mesh Profile v1.0.1 §3.8.6)."""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from fastprovd.errors import LocalProtocolError
from fastprovd.mesh import crypto

KEY_OCTETS: Final = 16


def _checked(octets: bytes, what: str) -> bytes:
    if len(octets) != KEY_OCTETS:
        raise LocalProtocolError(f"{what} must have 16 octets, got {len(octets)}")
    return bytes(octets)


class _UpperTransportKey:
    """AES-CCM with both TransMIC sizes; the ciphers are made once."""

    __slots__ = ("_mic_32", "_mic_64", "octets")

    def __init__(self, octets: bytes, what: str) -> None:
        self.octets = _checked(octets, what)
        self._mic_32 = AESCCM(self.octets, tag_length=4)
        self._mic_64 = AESCCM(self.octets, tag_length=8)

    def is_same(self, other: object) -> bool:
        """Whether `other` is a key of this kind with the same octets."""
        return type(other) is type(self) and other.octets == self.octets

    def encrypt(
        self, nonce: bytes, access_payload: bytes, *, szmic: int, label: bytes | None = None
    ) -> bytes:
        """Return the Upper Transport PDU: ciphertext | TransMIC of 4 (`szmic` 0) or 8 octets."""
        cipher = self._mic_64 if szmic else self._mic_32
        return cipher.encrypt(nonce, access_payload, label)

    def decrypt(
        self, nonce: bytes, upper_pdu: bytes, *, szmic: int, label: bytes | None = None
    ) -> bytes | None:
        """Return the access payload, or `None` when this key does not open it."""
        cipher = self._mic_64 if szmic else self._mic_32
        try:
            return cipher.decrypt(nonce, upper_pdu, label)
        except InvalidTag:
            return None


class AppKey(_UpperTransportKey):
    """An application key, bound to one NetKey."""

    __slots__ = ("aid", "bound_net_key_index", "index")

    def __init__(self, octets: bytes, index: int = 0, bound_net_key_index: int = 0) -> None:
        super().__init__(octets, "AppKey")
        self.index = index
        self.bound_net_key_index = bound_net_key_index
        self.aid = crypto.k4(self.octets)

    def __repr__(self) -> str:
        return f"AppKey(index={self.index})"


class DevKey(_UpperTransportKey):
    """The device key of one node."""

    __slots__ = ()

    def __init__(self, octets: bytes) -> None:
        super().__init__(octets, "DevKey")

    def __repr__(self) -> str:
        return "DevKey(<hidden>)"


class NetworkCredentials:
    """NID, EncryptionKey and PrivacyKey of one credential set; the ciphers are made once."""

    __slots__ = ("_ccm_32", "_ccm_64", "_privacy_cipher", "index", "nid")

    def __init__(self, nid: int, encryption_key: bytes, privacy_key: bytes, index: int = 0) -> None:
        """`index` is that of the NetKey the credentials derive from."""
        self.nid = nid
        self.index = index
        self._ccm_32 = AESCCM(encryption_key, tag_length=4)
        self._ccm_64 = AESCCM(encryption_key, tag_length=8)
        self._privacy_cipher = crypto.BlockCipher(privacy_key)

    def encrypt(self, nonce: bytes, plaintext: bytes, *, ctl: int) -> bytes:
        """Return DST and TransportPDU encrypted, then NetMIC: 4 octets, 8 when CTL is 1."""
        return (self._ccm_64 if ctl else self._ccm_32).encrypt(nonce, plaintext, None)

    def decrypt(self, nonce: bytes, ciphertext: bytes, *, ctl: int) -> bytes | None:
        """Return DST | TransportPDU, or `None` when the NetMIC is wrong."""
        try:
            return (self._ccm_64 if ctl else self._ccm_32).decrypt(nonce, ciphertext, None)
        except InvalidTag:
            return None

    def pecb(self, iv_index: int, privacy_random: bytes) -> bytes:
        """Return the first 6 octets of PECB for obfuscation; `privacy_random` has 7 octets."""
        block = b"\x00\x00\x00\x00\x00" + iv_index.to_bytes(4, "big") + privacy_random
        return self._privacy_cipher.encrypt(block)[:6]

    def __repr__(self) -> str:
        return f"{type(self).__name__}(nid=0x{self.nid:02x})"


class NetKey(NetworkCredentials):
    """A network key: its flooding credentials, Network ID, IdentityKey and BeaconKey."""

    __slots__ = ("_beacon_key", "_identity_cipher", "network_id", "octets")

    def __init__(self, octets: bytes, index: int = 0) -> None:
        self.octets = _checked(octets, "NetKey")
        super().__init__(*crypto.k2(self.octets, b"\x00"), index)
        self.network_id = crypto.k3(self.octets)
        identity_key = crypto.k1(self.octets, crypto.s1(b"nkik"), b"id128\x01")
        self._identity_cipher = crypto.BlockCipher(identity_key)
        self._beacon_key = crypto.k1(self.octets, crypto.s1(b"nkbk"), b"id128\x01")

    def node_identity_hash(self, random: bytes, address: int) -> bytes:
        """Return the 8-octet Hash of a Node Identity advertisement; `random` has 8 octets."""
        block = bytes(6) + random + address.to_bytes(2, "big")
        return self._identity_cipher.encrypt(block)[8:]

    def beacon_authentication(self, authenticated: bytes) -> bytes:
        """Return the 8-octet Authentication Value of a Secure Network beacon."""
        return crypto.aes_cmac(self._beacon_key, authenticated)[:8]

    def __repr__(self) -> str:
        return f"NetKey(index={self.index})"
