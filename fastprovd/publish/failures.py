"""Why there is no link to the broker: what kind of failure it is, and what helps.

Pure: errors in, sentences out. A failure that passes by itself is told from one that stays until
somebody changes something; both are tried again, the second with the longest pauses.
"""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple, TypeGuard

import aiomqtt
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode

from fastprovd.errors import StoreError
from fastprovd.publish.messages import Message

UNSUPPORTED_PROTOCOL_VERSION: Final = 0x84
FIRST_FAILURE: Final = 0x80
_MAX_WORDS: Final = 200  # characters of a text that the broker may make as long as it likes


class Kind(StrEnum):
    """What happened, in the order in which it can happen."""

    NO_ADDRESS = "no_address"
    UNREACHABLE = "unreachable"
    NO_TLS = "no_tls"
    TLS = "tls"
    CERTIFICATE = "certificate"
    CLIENT_CERTIFICATE = "client_certificate"
    TLS_EXPECTED = "tls_expected"
    NOT_MQTT = "not_mqtt"
    SILENT = "silent"
    HUNG_UP_ON_CONNECT = "hung_up_on_connect"
    VERSION = "version"
    LOGIN = "login"
    CLIENT_ID = "client_id"
    BANNED = "banned"
    NO_RETAIN = "no_retain"
    NO_QOS_1 = "no_qos_1"
    WILL_TOPIC = "will_topic"
    MOVED = "moved"
    LIMIT = "limit"
    TAKEN_OVER = "taken_over"
    CUT_SHORT = "cut_short"
    PROTOCOL = "protocol"
    STALLED = "stalled"
    STORE = "store"
    LOST = "lost"


class Remedy(NamedTuple):
    """`for_good`: it stays until somebody acts. `advice` may name `{client_id}` and `{topic}`."""

    for_good: bool
    advice: str


_ID: Final = "give each gateway its own gateway_id, in [gateway] id"
_AGAIN: Final = "trying again with growing pauses"
REMEDIES: Final = {
    Kind.NO_ADDRESS: Remedy(False, f"correct [mqtt] host, or the look-up of names; {_AGAIN}"),
    Kind.UNREACHABLE: Remedy(False, f"start the broker, or correct [mqtt] host and port; {_AGAIN}"),
    Kind.NO_TLS: Remedy(
        True, "use the port on which the broker speaks TLS, or set [mqtt.tls] enabled = false"
    ),
    Kind.TLS: Remedy(True, "make the TLS versions and ciphers of broker and gateway meet"),
    Kind.CERTIFICATE: Remedy(
        True,
        "set [mqtt.tls] ca to the authority that signed the broker's certificate, and [mqtt] host "
        "to a name in it; an expired one has to be renewed, and the clock to be right",
    ),
    Kind.CLIENT_CERTIFICATE: Remedy(
        True, "set [mqtt.tls] cert and key to a certificate that the broker trusts"
    ),
    Kind.TLS_EXPECTED: Remedy(True, "set [mqtt.tls] enabled = true, or use the port without TLS"),
    Kind.NOT_MQTT: Remedy(True, "correct [mqtt] host and port: something else listens there"),
    Kind.SILENT: Remedy(
        False,
        "if it stays so: is that a broker, and does its port expect TLS as [mqtt.tls] says? "
        + _AGAIN,
    ),
    Kind.HUNG_UP_ON_CONNECT: Remedy(
        True,
        "the broker must allow retained messages and QoS 1, which the last will on {topic} needs, "
        "the client identifier {client_id}, and user name and password; its port must expect TLS "
        "or not as [mqtt.tls] says",
    ),
    Kind.VERSION: Remedy(True, "use a broker with MQTT 5 or 3.1.1; [mqtt] protocol may be `5`"),
    Kind.LOGIN: Remedy(True, "correct user name, password or the rights of the user at the broker"),
    Kind.CLIENT_ID: Remedy(True, "the broker must allow the client identifier {client_id}"),
    Kind.BANNED: Remedy(True, "the broker must take {client_id} off its list of banned clients"),
    Kind.NO_RETAIN: Remedy(
        True, "the broker must allow retained messages (mosquitto: retain_available true)"
    ),
    Kind.NO_QOS_1: Remedy(True, "the broker must allow QoS 1 (mosquitto: max_qos 1 or 2)"),
    Kind.WILL_TOPIC: Remedy(True, "the broker must allow the last will on {topic}"),
    Kind.MOVED: Remedy(True, "set [mqtt] host to the server that the broker names"),
    Kind.LIMIT: Remedy(True, "the broker must allow more to the client {client_id}"),
    Kind.TAKEN_OVER: Remedy(
        True,
        f"another client uses our client identifier {{client_id}}: {_ID}, or its own base_topic",
    ),
    Kind.CUT_SHORT: Remedy(
        True,
        "another client probably uses our client identifier {client_id}, which ends each link as "
        f"the other one begins: {_ID}, or its own base_topic; else look into the broker's log",
    ),
    Kind.PROTOCOL: Remedy(False, f"the broker does not keep to MQTT, look into its log; {_AGAIN}"),
    Kind.STALLED: Remedy(False, f"look into the broker's log and at its load; {_AGAIN}"),
    Kind.STORE: Remedy(False, f"see that the state directory can be written; {_AGAIN}"),
    Kind.LOST: Remedy(False, _AGAIN),
}

# Reason codes of CONNACK and DISCONNECT; those that are not here are Kind.LOST.
_KINDS: Final = {
    0x81: Kind.PROTOCOL,
    0x82: Kind.PROTOCOL,
    UNSUPPORTED_PROTOCOL_VERSION: Kind.VERSION,
    0x85: Kind.CLIENT_ID,
    0x86: Kind.LOGIN,
    0x87: Kind.LOGIN,
    0x8A: Kind.BANNED,
    0x8C: Kind.LOGIN,
    0x8E: Kind.TAKEN_OVER,
    0x90: Kind.WILL_TOPIC,
    0x95: Kind.LIMIT,
    0x97: Kind.LIMIT,
    0x9A: Kind.NO_RETAIN,
    0x9B: Kind.NO_QOS_1,
    0x9C: Kind.MOVED,
    0x9D: Kind.MOVED,
    0x9F: Kind.LIMIT,
}
# In these a broker says that the end of the link has nothing to do with what was sent last.
_NOT_THE_MESSAGE: Final = frozenset({0x88, 0x89, 0x8B, 0x8D, 0x8E, 0x98, 0x9C, 0x9D, 0x9F, 0xA0})


class _OnItsWay:
    """What was sent on the link and not acknowledged, in order, and how many messages were."""

    unacknowledged: Sequence[Message] = ()
    acknowledged: int = 0


class LinkError(_OnItsWay, aiomqtt.MqttError):
    """There is no link, or no more, for a reason that is no reason code of MQTT."""

    def __init__(self, kind: Kind, sentence: str) -> None:
        super().__init__(sentence)
        self.kind = kind


class BrokerSaid(_OnItsWay, aiomqtt.MqttCodeError):
    """The broker gave a reason code in CONNACK or DISCONNECT, and perhaps words of its own."""

    def __init__(self, code: ReasonCode, properties: Properties | None = None) -> None:
        super().__init__(code)
        words = [
            str(getattr(properties, name))[:_MAX_WORDS]
            for name in ("ReasonString", "ServerReference")
            if getattr(properties, name, None)
        ]
        self._sentence = ": ".join(["the broker says", str(code), *map(ascii, words)])

    def __str__(self) -> str:
        """Return one sentence; what the broker wrote is quoted and capped."""
        return self._sentence


LinkEnd = LinkError | BrokerSaid


def kind_of(error: BaseException) -> Kind:
    """Return what kind of failure an error stands for."""
    if isinstance(error, LinkError):
        return error.kind
    if isinstance(error, StoreError):
        return Kind.STORE
    code = reason_code(error)
    return Kind.LOST if code is None else _KINDS.get(code, Kind.LOST)


def may_be_the_message(error: BaseException) -> TypeGuard[LinkEnd]:
    """Tell whether a message that the broker had not acknowledged may have ended the link."""
    return isinstance(error, LinkError | BrokerSaid) and reason_code(error) not in _NOT_THE_MESSAGE


def reason_code(error: BaseException) -> int | None:
    """Return the reason code of CONNACK or DISCONNECT in an error, or None."""
    if isinstance(error, aiomqtt.MqttCodeError) and isinstance(error.rc, ReasonCode):
        return int(error.rc.value)
    return None


def of_tls(error: ssl.SSLError) -> LinkError:
    """Return what an error of TLS means; a broker's alert about our certificate comes late."""
    reason = (error.reason or str(error)).replace("_", " ").lower()
    if isinstance(error, ssl.SSLCertVerificationError):
        return LinkError(
            Kind.CERTIFICATE, f"the broker's certificate is not trusted: {error.verify_message}"
        )
    if isinstance(error, ssl.SSLEOFError) or error.reason in _NO_TLS:
        return LinkError(Kind.NO_TLS, f"what listens there does not answer in TLS ({reason})")
    if "alert" in reason and any(word in reason for word in ("certificate", "unknown ca")):
        return LinkError(Kind.CLIENT_CERTIFICATE, f"the broker refuses our certificate: {reason}")
    return LinkError(Kind.TLS, f"TLS failed: {reason}")


_NO_TLS: Final = frozenset({"WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "HTTP_REQUEST"})
