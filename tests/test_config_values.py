"""What single values may hold."""

from __future__ import annotations

import pytest

from fastprovd.config_values import (
    MAX_BASE_TOPIC_LEVELS,
    MAX_BASE_TOPIC_OCTETS,
    MAX_MQTT_OCTETS,
    absolute_path,
    base_topic,
    broker_host,
    mqtt_text,
)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "broker.lan",
        "broker.lan.",
        "mqtt_broker",
        "7.example",
        "bröker.lan",
        "192.0.2.7",
        "::1",
        "2001:db8::7",
        "fe80::1%eth0",
        f"{'a' * 63}.lan",
    ],
)
def test_names_and_addresses_are_hosts(host: str) -> None:
    """Of both versions of IP, with a zone, with the underscore that containers use."""
    broker_host(host)


@pytest.mark.parametrize(
    ("host", "alone"),
    [
        ("mqtt://broker.lan", "broker.lan"),
        ("mqtts://user:secret@broker.lan:8883/", "broker.lan"),
        ("tcp://192.0.2.7", "192.0.2.7"),
        ("ws://broker.lan:9001/mqtt", "broker.lan"),
        ("broker.lan:1883", "broker.lan"),
        ("192.0.2.7:1883", "192.0.2.7"),
        ("user@broker.lan", "broker.lan"),
        ("broker.lan/", "broker.lan"),
        ("[::1]", "::1"),
        ("[2001:db8::7]:1883", "2001:db8::7"),
    ],
)
def test_what_is_around_a_host_is_told_to_leave(host: str, alone: str) -> None:
    """As other programs want it written: the sentence has the host as we do."""
    with pytest.raises(ValueError, match=f"alone, such as '{alone}'; the port belongs") as caught:
        broker_host(host)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "host",
    [
        "",
        " ",
        "two words",
        '"broker.lan"',
        "broker.lan\0",
        "b\udcff",
        "-a",
        "a-",
        "a..b",
        ".",
        "a" * 64,
        ".".join(["a" * 60] * 5),
        "256.1.1.1",
        "192.168.1",
        "1.2.3.4.5",
        "0x7f000001",
        "2001:db8::7::1",
        "224.0.0.1",
        "ff02::1",
        "255.255.255.255",
        "http://",
    ],
)
def test_no_host(host: str) -> None:
    """Nothing, no name by RFC 1035, no address, or none to connect to."""
    with pytest.raises(ValueError, match=r"^expected the name or address of the broker$"):
        broker_host(host)


@pytest.mark.parametrize(
    "topic", ["fastprovd", "a/b/c", "a b", "Büro/1. Stock", "a$b", "x" * MAX_BASE_TOPIC_OCTETS]
)
def test_topics_to_publish_to(topic: str) -> None:
    """Levels of any text, up to a length that leaves room for ours."""
    base_topic(topic)


@pytest.mark.parametrize(
    ("topic", "message"),
    [
        ("", "none of them empty"),
        ("/a", "none of them empty"),
        ("a/", "none of them empty"),
        ("a//b", "none of them empty"),
        ("a/+", "without [+] #"),
        ("#", "without [+] #"),
        ("a#b", "without [+] #"),
        ("$SYS/fastprovd", "without [$] at its beginning"),
        ("$share/g/a", "without [$] at its beginning"),
        ("a\0b", "without U[+]0000"),
        ("a\nb", "without U[+]000A"),
        ("a\x9f", "without U[+]009F"),
        ("a\udcff", "without U[+]DCFF"),
        ("a\ufffe", "without U[+]FFFE"),
        ("ü" * MAX_BASE_TOPIC_OCTETS, "1024 octets at most"),
        ("/".join("a" * (MAX_BASE_TOPIC_LEVELS + 1)), "100 levels at most"),
    ],
)
def test_topics_that_no_broker_takes(topic: str, message: str) -> None:
    """Wildcards, empty levels, what is the broker's, and what is not UTF-8 of MQTT."""
    with pytest.raises(ValueError, match=f"^expected .*{message}"):
        base_topic(topic)


def test_a_text_of_a_packet_has_a_length_of_two_octets() -> None:
    """So it is bounded; nothing is a text too."""
    mqtt_text("")
    mqtt_text("x" * MAX_MQTT_OCTETS)
    with pytest.raises(ValueError, match="65535 octets at most"):
        mqtt_text("ü" * (MAX_MQTT_OCTETS // 2 + 1))


@pytest.mark.parametrize("path", ["state", "./state", "~/state", "../state", ""])
def test_paths_that_depend_on_where_one_is(path: str) -> None:
    """A service is started elsewhere than a command."""
    absolute_path("/state")
    with pytest.raises(ValueError, match="begins with /"):
        absolute_path(path)
