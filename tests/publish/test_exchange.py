"""Requests are taken apart safely, and answers are as long as they may be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastprovd.publish.exchange import (
    COMMANDS,
    MAX_ERROR_CHARACTERS,
    MAX_REQUEST_OCTETS,
    MAX_TRANSACTION_LENGTH,
    ErrorCode,
    Request,
    Response,
    parse_request,
    response_payload,
)


def test_a_response() -> None:
    """A success has data; a refusal also code and sentence; the transaction comes back."""
    assert json.loads(response_payload(Response({"run_id": "r-1"}, transaction="a1"))) == {
        "status": "ok",
        "data": {"run_id": "r-1"},
        "transaction": "a1",
    }
    refused = Response({"run_id": "r-1"}, ErrorCode.RUN_IN_PROGRESS, "send run/stop first")
    assert json.loads(response_payload(refused)) == {
        "status": "error",
        "code": "run_in_progress",
        "error": "send run/stop first",
        "data": {"run_id": "r-1"},
    }


def a_page(count: int, offset: int = 0) -> Response:
    """Return a page of `count` nodes from a longer list."""
    data = {
        "count": 1_000,
        "offset": offset,
        "next_offset": None,
        "addresses": [f"0x{offset + number:04x}" for number in range(count)],
        "nodes": [
            {"addr": f"0x{offset + number:04x}", "pad": "x" * 400} for number in range(count)
        ],
    }
    return Response(data, paged=("addresses", "nodes"), transaction="a1")


def test_a_page_is_cut_where_a_packet_ends() -> None:
    """As many items as fit, alike in both lists, and where to go on."""
    whole = response_payload(a_page(300, 40))
    assert response_payload(a_page(300, 40), len(whole)) == whole
    cut = response_payload(a_page(300, 40), 20_000)
    assert 19_500 < len(cut) <= 20_000
    data = json.loads(cut)["data"]
    shown = len(data["nodes"])
    assert data["addresses"] == [node["addr"] for node in data["nodes"]]
    assert data["next_offset"] == 40 + shown
    assert data["count"] == 1_000
    assert json.loads(cut)["transaction"] == "a1"


def test_a_page_of_which_nothing_fits() -> None:
    """Rather than an empty page for ever, the lists are said to be left out."""
    data = json.loads(response_payload(a_page(3), 250))
    assert data["data"]["nodes"] is None
    assert data["shortened"] is True


def test_a_result_that_is_too_long_is_shortened() -> None:
    """That all were told stays, whatever the number of those that did not confirm."""
    data = {"addr": "0xffff", "acknowledged": False, "unconfirmed": ["0x0002"] * 5_000}
    payload = json.loads(response_payload(Response(data), 20_000))
    assert payload["status"] == "ok"
    assert payload["data"] == {"addr": "0xffff", "acknowledged": False, "unconfirmed": None}


def test_a_sentence_of_a_refusal_is_bounded() -> None:
    """A sentence that names a thousand boards says no more than one that names a hundred."""
    refusal = Response(code=ErrorCode.GROUPS_FULL, error="x" * 100_000)
    assert len(response_payload(refusal)) < MAX_ERROR_CHARACTERS + 100


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_request(command: str) -> None:
    """Every command takes a JSON object; the transaction is taken out of it."""
    assert parse_request(
        command, b'{"expected": 20, "transaction": "a1"}', retained=False
    ) == Request(command, {"expected": 20}, "a1")


@pytest.mark.parametrize("payload", [b"", b"\n", b"\xef\xbb\xbf", b"{}", b"\xef\xbb\xbf{}"])
def test_nothing_is_an_empty_object(payload: bytes) -> None:
    """Where there is nothing to say, nothing has to be said, as with `mosquitto_pub -n`."""
    assert parse_request("run/stop", payload, retained=False) == Request("run/stop", {})


@pytest.mark.parametrize(("retained", "may_clear"), [(True, False), (True, True), (False, True)])
def test_what_clears_a_retained_command_runs_nothing(retained: bool, may_clear: bool) -> None:
    """An empty message with the retain flag, or one whose flag nobody tells."""
    refused = parse_request("run/start", b"", retained=retained, may_clear=may_clear)
    assert isinstance(refused, Response)
    code = ErrorCode.RETAINED_COMMAND if retained else ErrorCode.INVALID_REQUEST
    assert refused.code is code
    assert "clears" in (refused.error or "")
    assert isinstance(parse_request("run/start", b"{}", retained=False, may_clear=True), Request)


@pytest.mark.parametrize(
    ("command", "payload", "retained", "code"),
    [
        ("run/start", b"{", False, ErrorCode.INVALID_JSON),
        ("run/start", b"\xff\xfe", False, ErrorCode.INVALID_JSON),
        ("run/start", b'{"expected": NaN}', False, ErrorCode.INVALID_JSON),
        ("run/start", b"[" * 10_000, False, ErrorCode.INVALID_JSON),
        ("run/start", b"[]", False, ErrorCode.INVALID_REQUEST),
        ("run/start", b"null", False, ErrorCode.INVALID_REQUEST),
        ("run/start", b'{"expected": 1, "expected": 2}', False, ErrorCode.INVALID_REQUEST),
        ("run/start", b'{"expected": ' + b"9" * 5_000 + b"}", False, ErrorCode.INVALID_REQUEST),
        ("keys/export", b"", True, ErrorCode.UNKNOWN_COMMAND),
        ("run/start", b'{"transaction": {}}', False, ErrorCode.INVALID_REQUEST),
        ("run/start", b'{"transaction": true}', False, ErrorCode.INVALID_REQUEST),
        ("run/start", b'{"transaction": 1.5}', False, ErrorCode.INVALID_REQUEST),
        ("run/start", b" " * (MAX_REQUEST_OCTETS + 1), False, ErrorCode.INVALID_REQUEST),
        ("keys/export", b"{}", False, ErrorCode.UNKNOWN_COMMAND),
        ("run/start", b"{}", True, ErrorCode.RETAINED_COMMAND),
    ],
)
def test_a_refused_request(command: str, payload: bytes, retained: bool, code: ErrorCode) -> None:
    """What is wrong with a request is told by its code and a sentence."""
    refused = parse_request(command, payload, retained=retained)
    assert isinstance(refused, Response)
    assert refused.code is code
    assert refused.error


def test_a_refusal_echoes_the_transaction() -> None:
    """Whoever sent a retained or unknown command finds the answer to it."""
    for command, retained in (("run/start", True), ("unknown", False)):
        refused = parse_request(command, b'{"transaction": 7}', retained=retained)
        assert refused.transaction == 7


def test_a_transaction_of_any_length_but_too_long() -> None:
    """The longest transaction is taken, one character more is not."""
    longest = "x" * MAX_TRANSACTION_LENGTH
    taken = parse_request("run/stop", json.dumps({"transaction": longest}).encode(), retained=False)
    assert taken == Request("run/stop", {}, longest)
    longer = json.dumps({"transaction": longest + "x"}).encode()
    assert isinstance(parse_request("run/stop", longer, retained=False), Response)


@given(st.binary(max_size=200), st.booleans())
def test_any_payload_gives_a_request_or_a_response(payload: bytes, retained: bool) -> None:
    """No octets raise, and a refusal can be published."""
    result = parse_request("run/start", payload, retained=retained)
    if isinstance(result, Response):
        response_payload(result)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), json_values, max_size=4), st.text(max_size=20) | st.integers())
def test_any_object_comes_through(data: dict[str, Any], transaction: str | int) -> None:
    """Fields and transaction arrive as they were sent, lone surrogates included."""
    data.pop("transaction", None)
    payload = json.dumps(data | {"transaction": transaction}).encode()
    result = parse_request("run/start", payload, retained=False)
    if isinstance(transaction, int) and abs(transaction) >= 2**63:
        assert isinstance(result, Response)
    else:
        assert result == Request("run/start", data, transaction)
