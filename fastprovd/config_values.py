"""What a single value of the configuration may hold; each check raises ValueError: a sentence."""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

# RFC 1035: 63 octets for each label, 253 for a name as it is written.
_LABEL: Final = re.compile(r"(?![-])[\w-]{1,63}(?<![-])")
_MAX_NAME_OCTETS: Final = 253
_NUMERIC: Final = re.compile(r"[0-9.]+|0[xX][0-9a-fA-F]+")

# MQTT 5 1.5.4: no U+0000 and no surrogates; brokers hang up on the others, as they may.
_UNFIT: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
MAX_MQTT_OCTETS: Final = 65_535
"""Octets of a text in an MQTT packet, whose length has two."""

# Our topics go on for some hundred octets and five levels. Mosquitto takes 200 levels, EMQX 128.
MAX_BASE_TOPIC_OCTETS: Final = 1_024
MAX_BASE_TOPIC_LEVELS: Final = 100


def broker_host(text: str) -> None:
    """Take the name or the address of a host, and nothing around it."""
    if _is_host(text):
        return
    expected = "expected the name or address of the broker"
    try:
        host = urlsplit(text if "//" in text else f"//{text}").hostname or ""
    except ValueError:
        host = ""
    is_ipv6 = text.count(":") > 1 and "/" not in text and "[" not in text
    if is_ipv6 or not _is_host(host):
        raise ValueError(expected)
    raise ValueError(
        f"{expected} alone, such as '{host}'; the port belongs into mqtt.port, user and password "
        "into mqtt.username and mqtt.password_file, and mqtts:// is mqtt.tls.enabled"
    )


def mqtt_text(text: str) -> None:
    """Take what may stand in a packet of MQTT."""
    found = _UNFIT.search(text)
    if found is not None:
        raise ValueError(f"expected text without U+{ord(found[0]):04X}, which no broker takes")
    if len(text.encode()) > MAX_MQTT_OCTETS:
        raise ValueError(f"expected {MAX_MQTT_OCTETS} octets at most")


def base_topic(text: str) -> None:
    """Take the first levels of a topic that we may publish to."""
    mqtt_text(text)
    if text.startswith("$"):
        raise ValueError("expected a topic without $ at its beginning, those are the broker's own")
    if re.search("[+#]", text) or "" in text.split("/"):
        raise ValueError("expected topic levels without + # and none of them empty")
    if len(text.encode()) > MAX_BASE_TOPIC_OCTETS:
        raise ValueError(f"expected {MAX_BASE_TOPIC_OCTETS} octets at most")
    if text.count("/") >= MAX_BASE_TOPIC_LEVELS:
        raise ValueError(f"expected {MAX_BASE_TOPIC_LEVELS} levels at most")


def absolute_path(text: str) -> None:
    """Take a path that means the same wherever the program is started."""
    if not text.startswith("/"):
        raise ValueError("expected a path that begins with /")


def _is_host(text: str) -> bool:
    return _is_address(text) or _is_name(text)


def _is_address(text: str) -> bool:
    """Tell whether it is an address that one can connect to."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not address.is_multicast and str(address) != "255.255.255.255"


def _is_name(text: str) -> bool:
    if _NUMERIC.fullmatch(text):  # an address, were it right
        return False
    try:
        octets = text.encode("idna")
    except UnicodeError:
        return False
    labels = text.removesuffix(".").split(".")
    return len(octets) <= _MAX_NAME_OCTETS and all(_LABEL.fullmatch(label) for label in labels)
