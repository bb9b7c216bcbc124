"""Messages made as long as a packet of the broker may be."""

from __future__ import annotations

from dataclasses import replace

from paho.mqtt.properties import Properties

from fastprovd.publish.json_objects import shorten
from fastprovd.publish.limits import packet_octets
from fastprovd.publish.messages import Message


def fitted(message: Message, max_packet_size: int | None) -> Message:
    """Return a message that a packet of at most `max_packet_size` octets holds, if there is a way.

    `None`: no limit is known. What it left out is `null`, and it says `shortened`.
    """
    if max_packet_size is None or not message.payload.startswith(b"{"):
        return message
    short = shorten(message.payload, max_packet_size - packet_overhead(message.topic))
    return message if short is message.payload else replace(message, payload=short)


def packet_overhead(topic: str, properties: Properties | None = None) -> int:
    """Return how many octets a PUBLISH has beside its payload, at most."""
    remaining_length_grows_by = 3
    return packet_octets(Message(topic, b""), properties) + remaining_length_grows_by
