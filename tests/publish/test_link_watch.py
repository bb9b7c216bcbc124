"""Pauses grow until a link has lasted, and each reason is said once."""

from __future__ import annotations

import itertools

import pytest
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.reasoncodes import ReasonCode
from structlog.testing import capture_logs

from fastprovd.publish.client import BrokerSettings
from fastprovd.publish.failures import BrokerSaid, Kind, LinkError
from fastprovd.publish.link_watch import BACK_OFF_CAP_S, LASTED_S, LinkWatch

LOST = LinkError(Kind.LOST, "the broker hung up without a word")
TAKEN_OVER = BrokerSaid(ReasonCode(PacketTypes.DISCONNECT, identifier=0x8E))


def a_watch(host: str = "broker.lan") -> LinkWatch:
    """Return one without jitter."""
    return LinkWatch(BrokerSettings(host, 1883, "hall", base_topic="home"), lambda: 1.0)


def test_pauses_grow_although_links_come_to_be() -> None:
    """A link that did not last changes nothing."""
    watch, pauses = a_watch(), []
    for _ in range(9):
        watch.ended(LOST, was_up=True)
        pauses.append(watch.pause_s())
    assert pauses == [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, BACK_OFF_CAP_S, BACK_OFF_CAP_S]


def test_a_link_that_lasted_begins_anew() -> None:
    """With the pauses, with the count of short links, and with what is said aloud."""
    watch = a_watch()
    with capture_logs() as logs:
        for _ in range(2):
            watch.ended(LOST, was_up=True)
        watch.pause_s()
        watch.lasted()
        for _ in range(2):
            watch.ended(LOST, was_up=True)
    assert watch.pause_s() == 0.5
    assert [entry["log_level"] for entry in logs] == ["warning", "debug", "warning", "debug"]


def test_lasting_is_longer_than_any_pause() -> None:
    """Else two gateways of one name would each look good while the other one waits."""
    assert LASTED_S > BACK_OFF_CAP_S


def test_a_taken_session_names_our_identifier() -> None:
    """One sentence with the identifier, which has the base topic in it, and with what to do."""
    with capture_logs() as logs:
        a_watch().ended(TAKEN_OVER, was_up=True)
    (entry,) = logs
    assert entry["log_level"] == "error"
    assert entry["reason"] == "broker.lan:1883: the broker says: Session taken over"
    assert "'home:hall'" in entry["advice"]
    assert "gateway_id" in entry["advice"]


def test_links_cut_short_without_a_word_are_guessed_at() -> None:
    """The third in a row is probably a client with our identifier; said once, and tried on."""
    watch = a_watch()
    with capture_logs() as logs:
        for _ in range(5):
            watch.ended(LOST, was_up=True)
    said = [entry for entry in logs if entry["log_level"] != "debug"]
    assert [entry["log_level"] for entry in said] == ["warning", "error"]
    assert "3 links in a row" in said[1]["reason"]
    assert "probably uses our client identifier 'home:hall'" in said[1]["advice"]


def test_links_that_never_came_up_or_are_explained_are_not_counted() -> None:
    """A broker that is away, or hangs up on a message of ours, is no second gateway."""
    watch = a_watch()
    with capture_logs() as logs:
        for _ in range(5):
            watch.ended(LOST, was_up=False)
            watch.ended(LOST, was_up=True, explained=True)
            watch.ended(LinkError(Kind.STALLED, "no PUBACK"), was_up=True)
    assert not [entry for entry in logs if "identifier" in entry["advice"]]


@pytest.mark.parametrize("kind", [Kind.LOGIN, Kind.NO_RETAIN, Kind.CERTIFICATE, Kind.TLS_EXPECTED])
def test_what_is_for_good_is_an_error_and_tried_at_the_cap(kind: Kind) -> None:
    """Said once with host and port; the attempts never end."""
    watch = a_watch()
    with capture_logs() as logs:
        for _ in range(20):
            watch.ended(LinkError(kind, "no"), was_up=False)
            assert watch.pause_s() == BACK_OFF_CAP_S
    assert [entry["log_level"] for entry in logs] == ["error"] + ["debug"] * 19
    assert logs[0]["reason"] == "broker.lan:1883: no"


def test_each_reason_is_said_aloud_once_however_they_alternate() -> None:
    """So that no broker fills the log."""
    watch = a_watch()
    reasons = [LOST, TAKEN_OVER, LinkError(Kind.UNREACHABLE, "x"), LinkError(Kind.SILENT, "y")]
    with capture_logs() as logs:
        for error in itertools.islice(itertools.cycle(reasons), 400):
            watch.ended(error, was_up=False)
    assert len([entry for entry in logs if entry["log_level"] != "debug"]) == 4
