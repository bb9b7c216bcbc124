"""The security toolbox: plain functions on bytes (Mesh Profile v1.0.1 §3.8.2)."""

from __future__ import annotations

import functools
import hmac
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import AESCCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB
from cryptography.hazmat.primitives.cmac import CMAC

from fastprovd.errors import DecodeError, LocalProtocolError

BLOCK_OCTETS = 16
PUBLIC_KEY_OCTETS = 64
_COORDINATE_OCTETS = 32


class BlockCipher:
    """The security function e: AES-128 of single 16-octet blocks, the cipher made once."""

    __slots__ = ("_update",)

    def __init__(self, key: bytes) -> None:
        # ECB keeps no state between blocks, so one encryptor serves every PDU.
        self._update = Cipher(AES(key), ECB()).encryptor().update  # noqa: S305 - e() is one block

    def encrypt(self, block: bytes) -> bytes:
        """Return e(key, block); raises LocalProtocolError unless `block` has 16 octets."""
        # The encryptor would keep part of a block for the next call, which is another PDU's.
        if len(block) != BLOCK_OCTETS:
            raise LocalProtocolError(f"e() takes a block of 16 octets, got {len(block)}")
        return self._update(block)


def aes_cmac(key: bytes, message: bytes) -> bytes:
    """Return AES-CMAC(key, message), 16 octets (RFC 4493)."""
    cmac = CMAC(AES(key))
    cmac.update(message)
    return cmac.finalize()


def hmac_sha256(key: bytes, message: bytes) -> bytes:
    """Return HMAC-SHA-256(key, message), 32 octets."""
    return hmac.new(key, message, sha256).digest()


def aes_ccm_encrypt(key: bytes, nonce: bytes, message: bytes, mic_octets: int) -> bytes:
    """Return ciphertext followed by the MIC. For single use; key objects keep their cipher."""
    return AESCCM(key, tag_length=mic_octets).encrypt(nonce, message, None)


def aes_ccm_decrypt(key: bytes, nonce: bytes, ciphertext: bytes, mic_octets: int) -> bytes | None:
    """Return the message, `None` when the MIC at the end is wrong. For single use."""
    try:
        return AESCCM(key, tag_length=mic_octets).decrypt(nonce, ciphertext, None)
    except InvalidTag:
        return None


@functools.lru_cache(maxsize=64)
def s1(message: bytes) -> bytes:
    """Return the salt of `message`, 16 octets: AES-CMAC under the zero key; not secret."""
    return aes_cmac(bytes(16), message)


def s2(message: bytes) -> bytes:
    """Return the salt of `message`, 32 octets: HMAC-SHA-256 under the zero key."""
    return hmac_sha256(bytes(32), message)


def k1(n: bytes, salt: bytes, p: bytes) -> bytes:
    """Return the 16-octet key derived from N, SALT and P."""
    return aes_cmac(aes_cmac(salt, n), p)


def k2(n: bytes, p: bytes) -> tuple[int, bytes, bytes]:
    """Return (NID, EncryptionKey, PrivacyKey) of NetKey `n`; `p` is 00 for flooding."""
    t = aes_cmac(s1(b"smk2"), n)
    t1 = aes_cmac(t, p + b"\x01")
    t2 = aes_cmac(t, t1 + p + b"\x02")
    t3 = aes_cmac(t, t2 + p + b"\x03")
    return t1[15] & 0x7F, t2, t3


def k3(n: bytes) -> bytes:
    """Return the 8-octet public value of `n` (the Network ID of a NetKey)."""
    return aes_cmac(aes_cmac(s1(b"smk3"), n), b"id64\x01")[8:]


def k4(n: bytes) -> int:
    """Return the 6-bit public value of `n` (the AID of an AppKey)."""
    return aes_cmac(aes_cmac(s1(b"smk4"), n), b"id6\x01")[15] & 0x3F


def k5(n: bytes, salt: bytes, p: bytes) -> bytes:
    """Return the 32-octet key derived from N, SALT (32 octets) and P."""
    return hmac_sha256(hmac_sha256(salt, n), p)


class EcdhKeyPair:
    """A P-256 key pair of one provisioning session; the private half never leaves it."""

    __slots__ = ("_private", "public")

    def __init__(self, private_value: int) -> None:
        """Make the pair from a private scalar; `ValueError` outside 1..n-1."""
        self._private = ec.derive_private_key(private_value, ec.SECP256R1())
        numbers = self._private.public_key().public_numbers()
        self.public = numbers.x.to_bytes(_COORDINATE_OCTETS, "big") + numbers.y.to_bytes(
            _COORDINATE_OCTETS, "big"
        )

    @classmethod
    def from_octets(cls, private_octets: bytes) -> EcdhKeyPair:
        """Make the pair from 32 octets, big-endian."""
        return cls(int.from_bytes(private_octets, "big"))

    @classmethod
    def from_random(cls, random_octets: bytes) -> EcdhKeyPair:
        """Make the pair from 40 or more random octets, reduced into 1..n-1 with negligible bias."""
        order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
        return cls(int.from_bytes(random_octets, "big") % (order - 1) + 1)

    def exchange(self, peer_public: bytes) -> bytes:
        """Return the ECDH secret, 32 octets with leading zeros kept.

        Raises:
            DecodeError: `peer_public` is not 64 octets X|Y of a point on the curve.
        """
        if len(peer_public) != PUBLIC_KEY_OCTETS:
            raise DecodeError(f"public key must be 64 octets X|Y, got {len(peer_public)}")
        try:
            peer = ec.EllipticCurvePublicKey.from_encoded_point(
                ec.SECP256R1(), b"\x04" + peer_public
            )
        except ValueError as error:
            raise DecodeError("public key is not a point on curve P-256") from error
        return self._private.exchange(ec.ECDH(), peer)

    def __repr__(self) -> str:
        return "EcdhKeyPair(<private>)"
