"""Each failure has a kind, and each kind an advice."""

from __future__ import annotations

import ssl

import aiomqtt
import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fastprovd.errors import StoreError
from fastprovd.publish.failures import (
    REMEDIES,
    BrokerSaid,
    Kind,
    LinkError,
    kind_of,
    may_be_the_message,
    of_tls,
)


def said(code: int, packet: int = PacketTypes.DISCONNECT) -> BrokerSaid:
    """Return the error for a reason code."""
    return BrokerSaid(ReasonCode(packet, identifier=code))


def test_every_kind_has_an_advice() -> None:
    """And what is for good never promises to pass by itself."""
    assert set(REMEDIES) == set(Kind)
    for for_good, advice in REMEDIES.values():
        assert advice.format(client_id="c", topic="t")
        assert ("trying again" in advice) is not for_good


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (0x84, Kind.VERSION),
        (0x85, Kind.CLIENT_ID),
        (0x86, Kind.LOGIN),
        (0x87, Kind.LOGIN),
        (0x88, Kind.LOST),
        (0x8A, Kind.BANNED),
        (0x90, Kind.WILL_TOPIC),
        (0x9A, Kind.NO_RETAIN),
        (0x9B, Kind.NO_QOS_1),
        (0x9D, Kind.MOVED),
    ],
)
def test_a_refused_connect_has_a_kind(code: int, kind: Kind) -> None:
    """By the reason code of the CONNACK."""
    assert kind_of(said(code, PacketTypes.CONNACK)) is kind


def test_other_errors_have_a_kind_too() -> None:
    """Ours, the store's, and those of which only the text is known."""
    assert kind_of(LinkError(Kind.SILENT, "x")) is Kind.SILENT
    assert kind_of(StoreError("x")) is Kind.STORE
    assert kind_of(aiomqtt.MqttError("x")) is Kind.LOST
    assert kind_of(aiomqtt.MqttCodeError(4, "x")) is Kind.LOST


@pytest.mark.parametrize(
    ("code", "may"), [(0x8B, False), (0x8E, False), (0x95, True), (0x82, True)]
)
def test_a_message_is_not_blamed_for_what_the_broker_explains(code: int, may: bool) -> None:
    """A broker that shuts down, or has another client of our name, says so."""
    assert may_be_the_message(said(code)) is may
    assert may_be_the_message(LinkError(Kind.LOST, "hung up"))
    assert not may_be_the_message(StoreError("disk"))


def test_words_of_the_broker_are_quoted_and_capped() -> None:
    """They can hold anything."""
    properties = Properties(PacketTypes.DISCONNECT)
    properties.ReasonString = "go\n" + "x" * 5_000
    properties.ServerReference = "other.lan:1883"
    text = str(BrokerSaid(ReasonCode(PacketTypes.DISCONNECT, identifier=0x9D), properties))
    assert text.startswith("the broker says: Server moved: 'go\\nxxx")
    assert text.endswith("'other.lan:1883'")
    assert len(text) < 300


def tls_error(reason: str, cls: type[ssl.SSLError] = ssl.SSLError) -> ssl.SSLError:
    """Return an error as OpenSSL gives it."""
    error = cls(1, f"[SSL: {reason}] (_ssl.c:1)")
    error.reason = reason
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (tls_error("WRONG_VERSION_NUMBER"), Kind.NO_TLS),
        (tls_error("EOF", ssl.SSLEOFError), Kind.NO_TLS),
        (tls_error("TLSV13_ALERT_CERTIFICATE_REQUIRED"), Kind.CLIENT_CERTIFICATE),
        (tls_error("SSLV3_ALERT_CERTIFICATE_EXPIRED"), Kind.CLIENT_CERTIFICATE),
        (tls_error("TLSV1_ALERT_UNKNOWN_CA"), Kind.CLIENT_CERTIFICATE),
        (tls_error("TLSV1_ALERT_PROTOCOL_VERSION"), Kind.TLS),
        (tls_error("NO_SHARED_CIPHER"), Kind.TLS),
    ],
)
def test_an_error_of_tls_has_a_kind(error: ssl.SSLError, kind: Kind) -> None:
    """By OpenSSL's name for it."""
    assert of_tls(error).kind is kind
