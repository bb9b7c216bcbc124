"""What a request says and what it is answered with: payloads in, payloads out; pure."""

from __future__ import annotations

import bisect
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any, Final

from fastprovd.publish.json_objects import (
    BadObject,
    NotJson,
    encode,
    is_blank,
    read_object,
    shorten,
)

COMMANDS: Final = frozenset(
    {
        "run/start",
        "run/stop",
        "nodes/get",
        "node/set",
        "node/get",
        "groups/get",
        "group/add",
        "group/remove",
    }
)

MAX_REQUEST_OCTETS: Final = 16_384  # the longest honest request has some hundred
MAX_TRANSACTION_LENGTH: Final = 128
MAX_ERROR_CHARACTERS: Final = 1_000  # of a sentence that names all members of a large group


class ErrorCode(StrEnum):
    """The closed list of `code` in error responses."""

    INVALID_JSON = "invalid_json"
    INVALID_REQUEST = "invalid_request"
    UNKNOWN_COMMAND = "unknown_command"
    RETAINED_COMMAND = "retained_command"
    RUN_IN_PROGRESS = "run_in_progress"
    NO_RUN = "no_run"
    ADAPTER_UNAVAILABLE = "adapter_unavailable"
    CONNECT_FAILED = "connect_failed"
    UNKNOWN_NODE = "unknown_node"
    UNKNOWN_GROUP = "unknown_group"
    GROUPS_FULL = "groups_full"
    NODE_UNREACHABLE = "node_unreachable"
    SEQ_EXHAUSTED = "seq_exhausted"
    STATE_REFUSED = "state_refused"
    STATE_FAILED = "state_failed"
    BUSY = "busy"
    INTERNAL = "internal"


@dataclass(frozen=True, slots=True)
class Request:
    """One well-formed request; `data` is its JSON object without `transaction`."""

    command: str
    data: Mapping[str, Any]
    transaction: str | int | None = None


@dataclass(frozen=True, slots=True)
class Response:
    """What a request is answered with: `data`, and when refused also `code` and a sentence.

    `paged` names the lists in `data` that are one page, from `offset` on: they may be cut off at
    their end, alike, and `next_offset` then says where to go on.
    """

    data: Mapping[str, Any] = field(default_factory=dict)
    code: ErrorCode | None = None
    error: str | None = None
    transaction: str | int | None = None
    paged: tuple[str, ...] = ()


def response_payload(response: Response, max_octets: int | None = None) -> bytes:
    """Return the JSON octets of a response, in at most `max_octets` if there is a way.

    Raises:
        TypeError, ValueError: its data is not JSON-ready.
    """
    payload = _encode_response(response)
    if max_octets is None or len(payload) <= max_octets:
        return payload
    if response.paged:
        length = len(response.data[response.paged[0]])
        fitting = bisect.bisect_left(
            range(1, length + 1),
            True,
            key=lambda count: len(_encode_response(_first_of(response, count))) > max_octets,
        )
        if fitting:
            return _encode_response(_first_of(response, fitting))
    return shorten(payload, max_octets)


def parse_request(
    command: str, payload: bytes, *, retained: bool, may_clear: bool = False
) -> Request | Response:
    """Return the request, or the response that refuses it.

    Nothing is the same as `{}`, unless it is what clears a retained command, and must not run it.
    `may_clear`: the retain flag of a live message is not told, as with MQTT 3.1.1, so that nothing
    may be that.
    """
    if len(payload) > MAX_REQUEST_OCTETS:
        return Response(
            code=ErrorCode.INVALID_REQUEST,
            error=f"a request has at most {MAX_REQUEST_OCTETS} octets, got {len(payload)}",
        )
    nothing = is_blank(payload)
    if nothing and may_clear and not retained:
        return Response(
            code=ErrorCode.INVALID_REQUEST,
            error="with MQTT 3.1.1 an empty message may be what clears a retained command; send {}",
        )
    try:
        fields = {} if nothing else read_object(payload)
    except NotJson:
        error = "the payload is not JSON; send {} where there is nothing to say"
        return Response(code=ErrorCode.INVALID_JSON, error=error)
    except BadObject as refusal:
        return Response(
            code=ErrorCode.INVALID_REQUEST,
            error=f"{refusal.path or 'the payload'} {refusal}",
            data={"errors": [{"path": refusal.path, "message": str(refusal)}]},
        )
    transaction = fields.pop("transaction", None)
    if not _is_transaction(transaction):
        message = f"must be a string of at most {MAX_TRANSACTION_LENGTH} characters or an integer"
        return Response(
            code=ErrorCode.INVALID_REQUEST,
            error=f"transaction {message}",
            data={"errors": [{"path": "transaction", "message": message}]},
        )
    if command not in COMMANDS:
        return Response(
            code=ErrorCode.UNKNOWN_COMMAND,
            error=f"the commands are {', '.join(sorted(COMMANDS))}",
            transaction=transaction,
        )
    if retained:
        return Response(
            code=ErrorCode.RETAINED_COMMAND,
            error="an empty retained message only clears a command, nothing was executed"
            if nothing
            else "commands must not be retained; publish an empty retained payload to clear it",
            transaction=transaction,
        )
    return Request(command, fields, transaction)


def _encode_response(response: Response) -> bytes:
    payload: dict[str, Any] = {"status": "ok" if response.code is None else "error"}
    if response.code is not None:
        error = (response.error or "")[:MAX_ERROR_CHARACTERS]
        payload |= {"code": response.code.value, "error": error}
    payload["data"] = dict(response.data)
    if response.transaction is not None:
        payload["transaction"] = response.transaction
    return encode(payload)


def _first_of(response: Response, count: int) -> Response:
    data = response.data
    cut = {name: data[name][:count] for name in response.paged}
    return replace(response, data={**data, **cut, "next_offset": data["offset"] + count})


def _is_transaction(value: object) -> bool:
    if isinstance(value, str):
        return len(value) <= MAX_TRANSACTION_LENGTH
    return value is None or (
        isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    )
