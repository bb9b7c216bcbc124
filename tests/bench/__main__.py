"""Speed and memory of the protocol core, times at the doors: `python -m tests.bench`.

Every figure of speed is a ratio of two things measured in turns in the same run, because absolute
times say more about the machine than about the code. Read a line as "the left costs so many times
the right". It is a tool for people and no test: nothing here has a limit, so nothing fails on a
busy machine. What to look for:

- A Network PDU costs a small multiple of the AES-CCM that it can not do without. The rest is
  Python: nonce, obfuscation, dataclass.
- Key objects keep their ciphers. The line "one cipher per PDU" is the price of not doing so.
- A segment through the whole stack costs two to three Network PDUs: lower transport, transfer,
  replay list. It must not grow with the number of segments.
- What no key of ours opens must be cheap to refuse: a gateway hears its neighbours' networks too.

Memory is what Python allocates (tracemalloc) and stays; the ciphers of OpenSSL inside key objects
are not seen by it. Best of several rounds each, so other load disturbs little.

The doors to the emulated boards are measured once, by the clock that the boards live by and by the
real one; the system test prints the same table for the real bluetoothd.
"""

from __future__ import annotations

import sys
import timeit
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESCCM

from fastprovd.mesh import crypto
from fastprovd.mesh.access import encode_message
from fastprovd.mesh.events import Event, MessageReceived
from fastprovd.mesh.iv_index import IvIndex
from fastprovd.mesh.keys import AppKey, DevKey, NetKey, NetworkCredentials
from fastprovd.mesh.models.fast_provisioning import LIST_MAX_ADDRESSES, NodeAddrStatus
from fastprovd.mesh.models.generic_onoff import OnOffStatus
from fastprovd.mesh.network import NetworkPdu, decode_network_pdu, encode_network_pdu
from fastprovd.mesh.nonces import network_nonce
from fastprovd.mesh.proxy import ProxyPduType
from fastprovd.mesh.proxy_client import ProxyClient
from fastprovd.mesh.replay import ReplayProtectionList
from fastprovd.mesh.sequence import SequenceNumbers
from fastprovd.mesh.stack import Stack
from tests.bench import doors

ROUNDS = 15
CALLS = 400
TOP, PRIMARY = 0x0001, 0x0005
NET_KEY = NetKey(bytes(range(16)))
APP_KEY = AppKey(bytes(range(16, 32)))
DEV_KEY = DevKey(bytes(range(32, 48)))
IV_INDEX = IvIndex(0)
PDU = NetworkPdu(0, 7, 0x3129AB, PRIMARY, TOP, bytes(range(16)))


@dataclass(frozen=True)
class Duel:
    """Two things to compare; `share` is how many of the right one the left does at once."""

    left: str
    right: str
    run_left: Callable[[], object]
    run_right: Callable[[], object]
    share: int = 1

    def line(self) -> tuple[str, str, str, str]:
        """Measure in turns; return left, right, ratio, and the left's time in microseconds."""
        calls = max(1, CALLS // self.share)
        left = right = float("inf")
        for _ in range(ROUNDS):
            left = min(left, timeit.timeit(self.run_left, number=calls) / calls)
            right = min(right, timeit.timeit(self.run_right, number=CALLS) / CALLS)
        return self.left, self.right, f"{left / right / self.share:.2f}", f"{left * 1e6:.1f}"


def _stack(address: int, replay: ReplayProtectionList | None = None) -> Stack:
    stack = Stack(
        address=address,
        net_keys=[NET_KEY],
        iv_index=IV_INDEX,
        sequence=SequenceNumbers(range(1 << 24)),
        replay=replay,
    )
    stack.app_keys[0] = APP_KEY
    stack.dev_keys[PRIMARY] = DEV_KEY
    return stack


def network_duels() -> list[Duel]:
    """Compare the network layer with the AES-CCM in it, and with other ways to hold keys."""
    _, encryption_key, privacy_key = crypto.k2(NET_KEY.octets, b"\x00")
    ccm = AESCCM(encryption_key, tag_length=4)
    nonce = network_nonce(PDU.ttl, PDU.seq, PDU.src, IV_INDEX.value)
    plain = PDU.dst.to_bytes(2, "big") + PDU.transport_pdu
    sealed = ccm.encrypt(nonce, plain, None)
    raw = encode_network_pdu(PDU, NET_KEY)
    foreign = bytes([raw[0] ^ 1]) + raw[1:]

    def decode() -> object:
        return decode_network_pdu(raw, [NET_KEY], IV_INDEX)

    def decode_with_new_ciphers() -> object:
        credentials = NetworkCredentials(NET_KEY.nid, encryption_key, privacy_key)
        return decode_network_pdu(raw, [credentials], IV_INDEX)

    def decode_with_new_key() -> object:
        return decode_network_pdu(raw, [NetKey(NET_KEY.octets)], IV_INDEX)

    def encode() -> object:
        return encode_network_pdu(PDU, NET_KEY)

    return [
        Duel("encode Network PDU", "bare AES-CCM", encode, lambda: ccm.encrypt(nonce, plain, None)),
        Duel(
            "decode Network PDU", "bare AES-CCM", decode, lambda: ccm.decrypt(nonce, sealed, None)
        ),
        Duel("decode, one cipher per PDU", "key object reused", decode_with_new_ciphers, decode),
        Duel("decode, NetKey derived per PDU", "key object reused", decode_with_new_key, decode),
        Duel(
            "refuse a foreign NID",
            "decode Network PDU",
            lambda: decode_network_pdu(foreign, [NET_KEY], IV_INDEX),
            decode,
        ),
    ]


def stack_duels() -> list[Duel]:
    """Compare whole messages, both ways, with the Network PDUs they consist of."""
    board = _stack(PRIMARY)
    long = encode_message(NodeAddrStatus(tuple(range(0x10, 0x10 + LIST_MAX_ADDRESSES))))
    board.send(long, dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    segments = [out.raw for out in board.pdus_to_send()]
    raw = encode_network_pdu(PDU, NET_KEY)

    def decode() -> object:
        return decode_network_pdu(raw, [NET_KEY], IV_INDEX)

    def receive_long() -> None:
        client = ProxyClient(_stack(TOP))
        events: list[Event] = []
        for segment in segments:
            events += client.receive(ProxyPduType.NETWORK_PDU, segment, 0.0)
        if not isinstance(events[-1], MessageReceived):
            raise RuntimeError("the long message did not arrive")

    def send_long() -> None:
        stack = _stack(PRIMARY)
        stack.send(long, dst=TOP, key=APP_KEY, ttl=0, now=0.0)
        stack.pdus_to_send()

    count = len(segments)
    return [
        Duel(f"receive {count} segments, each", "decode Network PDU", receive_long, decode, count),
        Duel(
            f"send {count} segments, each",
            "encode Network PDU",
            send_long,
            lambda: encode_network_pdu(PDU, NET_KEY),
            count,
        ),
    ]


def retained(build: Callable[[], object]) -> int:
    """Return the octets that stay allocated for what `build` returns."""
    tracemalloc.start()
    try:
        kept = build()
        octets, _ = tracemalloc.get_traced_memory()
        del kept
        return octets
    finally:
        tracemalloc.stop()


def top_after_run(boards: int) -> object:
    """Return a Top's stack and events after a list and a roll-call of `boards` boards."""
    client = ProxyClient(_stack(TOP))
    first = 0x10
    primary = _stack(PRIMARY)
    listed = tuple(range(first, first + boards - 1))
    primary.send(encode_message(NodeAddrStatus(listed)), dst=TOP, key=APP_KEY, ttl=0, now=0.0)
    raws = [out.raw for out in primary.pdus_to_send()]
    for address in listed:
        node = _stack(address)
        node.send(encode_message(OnOffStatus(True)), dst=TOP, key=APP_KEY, now=0.0)
        raws += [out.raw for out in node.pdus_to_send()]
    events = [event for raw in raws for event in client.receive(ProxyPduType.NETWORK_PDU, raw, 0.0)]
    client.pdus_to_send()
    return client, events


def stack_with_replay_entries(entries: int) -> object:
    """Return a stack that has heard `entries` sources."""
    heard = [(src, 0, 1000 + src) for src in range(1, entries + 1)]
    return _stack(TOP, ReplayProtectionList(heard=heard))


def memory_lines() -> list[tuple[str, str, str, str]]:
    """Return lines of memory: what, against what, ratio, KiB."""
    stack_with_replay_entries(1)  # everything that is made once and cached is made now
    empty = retained(lambda: stack_with_replay_entries(0))
    full = retained(lambda: stack_with_replay_entries(1000))
    one = retained(lambda: top_after_run(2))
    hundred = retained(lambda: top_after_run(100))
    return [
        ("Stack, 1000 replay entries", "empty Stack", f"{full / empty:.1f}", _kib(full)),
        ("  per replay entry", "", "", _kib((full - empty) // 1000)),
        ("Top after a run of 100 boards", "of 2 boards", f"{hundred / one:.1f}", _kib(hundred)),
        ("  per board", "", "", _kib((hundred - one) // 98)),
    ]


def _kib(octets: int) -> str:
    return f"{octets / 1024:.2f}"


def table(title: str, unit: str, lines: list[tuple[str, str, str, str]]) -> str:
    """Return a table as text."""
    rows = [(title, "against", "ratio", unit), *lines]
    return "".join(f"{a:<32} {b:<22} {c:>7} {d:>9}\n" for a, b, c, d in rows)


def main() -> None:
    """Measure and print."""
    duels = [*network_duels(), *stack_duels()]
    sys.stdout.write(table("speed", "us", [duel.line() for duel in duels]))
    sys.stdout.write("\n" + table("memory", "KiB", memory_lines()))
    sys.stdout.write("\n" + doors.tables())


if __name__ == "__main__":
    main()
