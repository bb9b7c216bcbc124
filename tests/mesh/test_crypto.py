"""The security toolbox against sample data."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.errors import DecodeError, LocalProtocolError
from fastprovd.mesh import crypto
from tests.support.data import vectors

Output = dict[str, str]


def _aes_cmac(inputs: dict[str, Any]) -> Output:
    mac = crypto.aes_cmac(bytes.fromhex(inputs["key"]), bytes.fromhex(inputs["message"]))
    return {"mac": mac.hex()}


def _s1(inputs: dict[str, Any]) -> Output:
    return {"salt": crypto.s1(bytes.fromhex(inputs["m"])).hex()}


def _k1(inputs: dict[str, Any]) -> Output:
    n, salt, p = (bytes.fromhex(inputs[name]) for name in ("n", "salt", "p"))
    return {"k1": crypto.k1(n, salt, p).hex()}


def _k2(inputs: dict[str, Any]) -> Output:
    nid, encryption, privacy = crypto.k2(bytes.fromhex(inputs["n"]), bytes.fromhex(inputs["p"]))
    return {
        "nid": f"{nid:02x}",
        "encryption_key": encryption.hex(),
        "privacy_key": privacy.hex(),
    }


def _k3(inputs: dict[str, Any]) -> Output:
    return {"network_id": crypto.k3(bytes.fromhex(inputs["n"])).hex()}


def _k4(inputs: dict[str, Any]) -> Output:
    return {"aid": f"{crypto.k4(bytes.fromhex(inputs['n'])):02x}"}


def _uri_hash(inputs: dict[str, Any]) -> Output:
    return {"uri_hash": crypto.s1(bytes.fromhex(inputs["uri_data"]))[:4].hex()}


def _network_key(salt: bytes) -> Any:
    def derive(inputs: dict[str, Any]) -> Output:
        net_key = bytes.fromhex(inputs["net_key"])
        return {"key": crypto.k1(net_key, crypto.s1(salt), b"id128\x01").hex()}

    return derive


FUNCTIONS = {
    "aes_cmac": _aes_cmac,
    "s1": _s1,
    "k1": _k1,
    "k2": _k2,
    "k3": _k3,
    "k4": _k4,
    "uri_hash": _uri_hash,
    "identity_key": _network_key(b"nkik"),
    "beacon_key": _network_key(b"nkbk"),
    "private_beacon_key": _network_key(b"nkpk"),
}
# test_keys.py has those that need a key object; nobody here has a virtual address.
ELSEWHERE = {"aes_ccm", "obfuscate", "virtual_address"}
SAMPLES = [entry for entry in vectors("crypto") if entry["function"] not in ELSEWHERE]
(SESSION,) = vectors("provisioning")


@pytest.mark.parametrize("entry", SAMPLES, ids=lambda entry: entry["id"])
def test_sample_derivations(entry: dict[str, Any]) -> None:
    """Each function gives the published output for the published inputs."""
    assert FUNCTIONS[entry["function"]](entry["inputs"]) == entry["output"]


def test_hmac_sha256_is_that_of_rfc_4231() -> None:
    """Test case 2 of RFC 4231, and s2 as HMAC under 32 zero octets."""
    assert crypto.hmac_sha256(b"Jefe", b"what do ya want for nothing?").hex() == (
        "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
    )
    assert crypto.s2(b"test") == crypto.hmac_sha256(bytes(32), b"test")


def test_the_block_cipher_keeps_no_state() -> None:
    """The FIPS-197 example comes out each time from one object."""
    cipher = crypto.BlockCipher(bytes(range(16)))
    block = bytes.fromhex("00112233445566778899aabbccddeeff")
    for _ in range(3):
        assert cipher.encrypt(block).hex() == "69c4e0d86a7b0430d8cdb78070b4c55a"


@pytest.mark.parametrize("octets", [0, 15, 17, 32])
def test_block_cipher_takes_whole_blocks_only(octets: int) -> None:
    """A wrong length is refused and does not shift the blocks after it."""
    cipher = crypto.BlockCipher(bytes(range(16)))
    before = cipher.encrypt(bytes(16))
    with pytest.raises(LocalProtocolError):
        cipher.encrypt(bytes(octets))
    assert cipher.encrypt(bytes(16)) == before


@given(st.binary(max_size=40), st.sampled_from([4, 8]))
def test_aes_ccm_opens_what_it_closed(message: bytes, mic_octets: int) -> None:
    """Ciphertext and MIC open under the same key and nonce; any changed octet closes them."""
    key, nonce = bytes(range(16)), bytes(range(13))
    sealed = crypto.aes_ccm_encrypt(key, nonce, message, mic_octets)
    assert len(sealed) == len(message) + mic_octets
    assert crypto.aes_ccm_decrypt(key, nonce, sealed, mic_octets) == message
    changed = bytes([sealed[0] ^ 1]) + sealed[1:]
    assert crypto.aes_ccm_decrypt(key, nonce, changed, mic_octets) is None


def test_aes_ccm_is_closed_to_what_is_shorter_than_its_mic() -> None:
    """A truncation below the MIC gives nothing instead of an error."""
    for length in range(8):
        assert crypto.aes_ccm_decrypt(bytes(16), bytes(13), bytes(length), 8) is None


@pytest.mark.parametrize("side", ["provisioner", "device"])
def test_sample_key_pairs_and_secret(side: str) -> None:
    """Either private key gives its public key and the one ECDH secret."""
    own, other = SESSION[side], SESSION["device" if side == "provisioner" else "provisioner"]
    pair = crypto.EcdhKeyPair.from_octets(bytes.fromhex(own["private_key"]))
    assert pair.public.hex() == own["public_key_x"] + own["public_key_y"]
    peer = bytes.fromhex(other["public_key_x"] + other["public_key_y"])
    assert pair.exchange(peer).hex() == SESSION["ecdh_secret"]
    assert own["private_key"] not in repr(pair)


@given(st.integers(1, 400))
def test_leading_zeros_of_coordinates_and_secrets_survive(scalar: int) -> None:
    """Public keys have 64 and secrets 32 octets, whatever they begin with."""
    pair, other = crypto.EcdhKeyPair(scalar), crypto.EcdhKeyPair(scalar + 1)
    assert len(pair.public) == 64
    secret = pair.exchange(other.public)
    assert len(secret) == 32
    assert secret == other.exchange(pair.public)


def test_a_secret_with_a_leading_zero_is_whole() -> None:
    """Among the first multiples of G there is one whose X begins with a zero octet."""
    generator = crypto.EcdhKeyPair(1)
    secrets = [crypto.EcdhKeyPair(scalar).exchange(generator.public) for scalar in range(1, 1500)]
    zeros = [secret for secret in secrets if secret[0] == 0]
    assert zeros
    assert all(len(secret) == 32 for secret in zeros)


@given(st.binary(min_size=40, max_size=48))
def test_any_random_octets_make_a_key_pair(octets: bytes) -> None:
    """All zeros, all ones and everything between is reduced to a valid scalar."""
    assert len(crypto.EcdhKeyPair.from_random(octets).public) == 64


@pytest.mark.parametrize("octet", [b"\x00", b"\xff"])
def test_the_extremes_of_random_octets_make_a_key_pair(octet: bytes) -> None:
    """Zero is not a scalar and neither is the order; both are avoided."""
    assert len(crypto.EcdhKeyPair.from_random(octet * 40).public) == 64


@given(st.binary(max_size=80))
def test_any_peer_key_gives_a_secret_or_a_decode_error(peer: bytes) -> None:
    """Wrong lengths and points off the curve raise DecodeError."""
    try:
        secret = crypto.EcdhKeyPair(1).exchange(peer)
    except DecodeError:
        return
    assert len(secret) == 32


def test_a_point_off_the_curve_is_refused() -> None:
    """One changed bit of a coordinate, the infinity and a coordinate beyond p are no points."""
    public = crypto.EcdhKeyPair(7).public
    for peer in (public[:-1] + bytes([public[-1] ^ 1]), bytes(64), b"\xff" * 64):
        with pytest.raises(DecodeError, match="not a point"):
            crypto.EcdhKeyPair(1).exchange(peer)
