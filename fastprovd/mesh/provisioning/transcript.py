"""What both sides derive from a session: Confirmations, session key, DevKey.

Mesh Profile v1.0.1 §5.4.2.4 and §5.4.2.5; HMAC_SHA256 as in Mesh Protocol v1.1. No OOB: the
AuthValue is all zeros.
"""

from __future__ import annotations

from dataclasses import dataclass

from fastprovd.mesh import crypto
from fastprovd.mesh.keys import DevKey
from fastprovd.mesh.provisioning.pdus import Algorithm, Data


@dataclass(slots=True)
class ConfirmationInputs:
    """The parameters of five PDUs exactly as they were on the air, never encoded again."""

    invite: bytes = b""
    capabilities: bytes = b""
    start: bytes = b""
    provisioner_public_key: bytes = b""
    device_public_key: bytes = b""

    @property
    def octets(self) -> bytes:
        """All five in order, 145 octets."""
        return (
            self.invite
            + self.capabilities
            + self.start
            + self.provisioner_public_key
            + self.device_public_key
        )


class Transcript:
    """The derivations of one session from its inputs and its ECDH secret; repr shows nothing."""

    __slots__ = ("_confirmation_key", "_confirmation_salt", "_ecdh_secret", "algorithm")

    def __init__(self, algorithm: Algorithm, inputs: ConfirmationInputs, secret: bytes) -> None:
        """`secret` is the ECDH secret, 32 octets."""
        self.algorithm = algorithm
        self._ecdh_secret = secret
        if algorithm is Algorithm.CMAC_AES128:
            self._confirmation_salt = crypto.s1(inputs.octets)
            self._confirmation_key = crypto.k1(secret, self._confirmation_salt, b"prck")
        else:
            auth_value = bytes(algorithm.value_octets)
            self._confirmation_salt = crypto.s2(inputs.octets)
            self._confirmation_key = crypto.k5(
                secret + auth_value, self._confirmation_salt, b"prck256"
            )

    def confirmation(self, random: bytes) -> bytes:
        """Return the Confirmation that fits `random`; both have the algorithm's length."""
        if self.algorithm is Algorithm.CMAC_AES128:
            auth_value = bytes(self.algorithm.value_octets)
            return crypto.aes_cmac(self._confirmation_key, random + auth_value)
        return crypto.hmac_sha256(self._confirmation_key, random)

    def session_keys(self, provisioner_random: bytes, device_random: bytes) -> SessionKeys:
        """Return what protects the Provisioning Data, and the DevKey."""
        salt = crypto.s1(self._confirmation_salt + provisioner_random + device_random)
        return SessionKeys(self._ecdh_secret, salt)


class SessionKeys:
    """Session key, session nonce and DevKey; repr shows nothing."""

    __slots__ = ("_key", "_nonce", "dev_key")

    def __init__(self, secret: bytes, provisioning_salt: bytes) -> None:
        """`secret` is the ECDH secret, 32 octets; `provisioning_salt` has 16 octets."""
        self._key = crypto.k1(secret, provisioning_salt, b"prsk")
        self._nonce = crypto.k1(secret, provisioning_salt, b"prsn")[3:]
        self.dev_key = DevKey(crypto.k1(secret, provisioning_salt, b"prdk"))

    def encrypt(self, provisioning_data: bytes) -> bytes:
        """Return 33 octets for the 25 of Provisioning Data."""
        return crypto.aes_ccm_encrypt(self._key, self._nonce, provisioning_data, Data.MIC_OCTETS)

    def decrypt(self, encrypted: bytes) -> bytes | None:
        """Return the 25 octets of Provisioning Data, `None` when the MIC is wrong."""
        return crypto.aes_ccm_decrypt(self._key, self._nonce, encrypted, Data.MIC_OCTETS)
