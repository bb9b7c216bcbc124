"""Which Response Topic of an MQTT 5 request is answered on; pure.

Whoever may publish requests can name any topic in one, and the reply goes out with the gateway's
rights: it must not pass for something that a gateway says, nor make the broker hang up.
"""

from __future__ import annotations

import unicodedata
from typing import Final

MAX_REPLY_TOPIC_OCTETS: Final = 256
"""As long as the strictest of the big brokers takes a topic (AWS IoT Core); who subscribes to a
topic for replies calls it something like `replies/CLIENT`."""

MAX_REPLY_TOPIC_LEVELS: Final = 32  # mosquitto hangs up beyond 200

DISCOVERY_PREFIX: Final = "homeassistant"
"""Home Assistant makes devices of what is published below it."""

_NEVER_CHARACTERS: Final = range(0xFDD0, 0xFDF0)  # nor the last two of each plane


def is_reply_topic(topic: str, base_topic: str) -> bool:
    """Tell whether a reply may go to `topic`; `base_topic` is what all gateways publish below."""
    return (
        bool(topic)
        and len(topic.encode("utf-8", "surrogatepass")) <= MAX_REPLY_TOPIC_OCTETS
        and topic.count("/") < MAX_REPLY_TOPIC_LEVELS
        and not topic.startswith("$")  # the broker's own (MQTT 5.0 §4.7.2)
        and all(map(_is_allowed, topic))
        and not any(_is_below(topic, tree) for tree in (base_topic, DISCOVERY_PREFIX))
    )


def _is_allowed(character: str) -> bool:
    """Tell whether a character may be in the topic of a PUBLISH (MQTT 5.0 §1.5.4, §4.7.1)."""
    code = ord(character)
    return (
        character not in "+#"
        and unicodedata.category(character) not in ("Cc", "Cs")  # control, surrogate
        and code not in _NEVER_CHARACTERS
        and code & 0xFFFE != 0xFFFE
    )


def _is_below(topic: str, tree: str) -> bool:
    return topic == tree or topic.startswith(f"{tree}/")
