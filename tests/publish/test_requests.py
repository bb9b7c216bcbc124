"""The request desk executes each transaction once and answers whatever happens."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from structlog.testing import capture_logs

from fastprovd.publish.exchange import ErrorCode, Request, Response
from fastprovd.publish.requests import (
    MAX_AT_ONCE,
    REMEMBERED,
    REMEMBERED_FOR_S,
    REMEMBERED_OCTETS,
    TRACEBACKS,
    TRACEBACKS_PER_S,
    RequestDesk,
)


class ManualClock:
    """A clock that stands still until it is moved."""

    now = 0.0

    def monotonic(self) -> float:
        """Return the seconds it was moved to."""
        return self.now

    def utc_now(self) -> datetime:
        """Return the beginning of the epoch moved on."""
        return datetime.fromtimestamp(self.now, UTC)


class Recorder:
    """A handler that keeps its requests, and may wait or fail."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.may_end = asyncio.Event()
        self.may_end.set()
        self.failure: Exception | None = None
        self.response: Response | None = None

    async def __call__(self, request: Request) -> Response:
        """Answer with the count of requests so far."""
        self.requests.append(request)
        number = len(self.requests)
        await self.may_end.wait()
        if self.failure is not None:
            raise self.failure
        return self.response or Response({"number": number})


async def ask(desk: RequestDesk, transaction: Any = None, command: str = "run/stop") -> Any:
    """Send a request and return the decoded response."""
    fields = {} if transaction is None else {"transaction": transaction}
    return json.loads(await desk.answer(command, json.dumps(fields).encode(), retained=False))


async def test_the_handler_gets_the_request_and_its_data_is_returned() -> None:
    """A well-formed request reaches the handler without its transaction, which is echoed."""
    handler = Recorder()
    desk = RequestDesk(handler, ManualClock())
    payload = b'{"addr": "0x0005", "transaction": "a1"}'
    answer = await desk.answer("node/get", payload, retained=False)
    assert handler.requests == [Request("node/get", {"addr": "0x0005"}, "a1")]
    assert json.loads(answer) == {"status": "ok", "data": {"number": 1}, "transaction": "a1"}


async def test_a_repeated_transaction_gets_the_stored_response() -> None:
    """The handler runs once for a command and transaction, and again for another command."""
    handler = Recorder()
    desk = RequestDesk(handler, ManualClock())
    first = await ask(desk, "a1")
    assert await ask(desk, "a1") == first
    assert len(handler.requests) == 1
    assert await ask(desk, "a1", "nodes/get") != first
    assert await ask(desk, 1) != await ask(desk, "1")


async def test_a_repeat_during_execution_waits_for_the_same_response() -> None:
    """Two equal requests at once are one execution and two equal answers."""
    handler = Recorder()
    handler.may_end.clear()
    desk = RequestDesk(handler, ManualClock())
    async with asyncio.TaskGroup() as group:
        answers = [group.create_task(ask(desk, "a1")) for _ in range(2)]
        await asyncio.sleep(0)
        handler.may_end.set()
    assert answers[0].result() == answers[1].result()
    assert len(handler.requests) == 1


async def test_who_gives_up_a_repeat_does_not_end_the_first() -> None:
    """The execution belongs to the one that began it."""
    handler = Recorder()
    handler.may_end.clear()
    desk = RequestDesk(handler, ManualClock())
    first = asyncio.create_task(ask(desk, "a1"))
    await asyncio.sleep(0)
    repeat = asyncio.create_task(ask(desk, "a1"))
    await asyncio.sleep(0)
    repeat.cancel()
    await asyncio.wait([repeat])
    handler.may_end.set()
    assert (await first)["status"] == "ok"


@pytest.mark.parametrize("code", list(ErrorCode))
async def test_a_refusal_is_not_what_a_repeat_gets(code: ErrorCode) -> None:
    """Whatever was in the way may be gone: the same transaction is tried again, until it is ok."""
    handler = Recorder()
    handler.response = Response(code=code, error="not now")
    desk = RequestDesk(handler, ManualClock())
    assert (await ask(desk, "a1"))["code"] == code
    handler.response = None
    assert (await ask(desk, "a1"))["data"] == {"number": 2}
    assert (await ask(desk, "a1"))["data"] == {"number": 2}


async def test_a_fault_is_not_what_a_repeat_gets() -> None:
    """After an exception the same transaction is tried again."""
    handler = Recorder()
    handler.failure = ZeroDivisionError()
    desk = RequestDesk(handler, ManualClock())
    with capture_logs():
        assert (await ask(desk, "a1"))["code"] == ErrorCode.INTERNAL
    handler.failure = None
    assert (await ask(desk, "a1"))["status"] == "ok"


async def test_requests_without_transaction_are_all_executed() -> None:
    """Nothing ties two anonymous requests together."""
    handler = Recorder()
    desk = RequestDesk(handler, ManualClock())
    assert await ask(desk) != await ask(desk)


async def test_a_stored_response_is_forgotten_after_ten_minutes() -> None:
    """The same transaction is executed again when the first is too long ago."""
    handler, clock = Recorder(), ManualClock()
    desk = RequestDesk(handler, clock)
    await ask(desk, "a1")
    clock.now += REMEMBERED_FOR_S
    await ask(desk, "a1")
    assert len(handler.requests) == 1
    clock.now += 0.001
    await ask(desk, "a1")
    assert len(handler.requests) == 2


async def test_only_the_last_responses_are_kept() -> None:
    """One response more than the limit pushes the oldest out, and no other."""
    handler = Recorder()
    desk = RequestDesk(handler, ManualClock())
    for number in range(REMEMBERED + 1):
        await ask(desk, number)
    await ask(desk, 1)
    assert len(handler.requests) == REMEMBERED + 1
    await ask(desk, 0)
    assert len(handler.requests) == REMEMBERED + 2


async def test_long_results_push_older_ones_out() -> None:
    """What is kept is bounded in octets too; the newest is always kept."""
    handler = Recorder()
    handler.response = Response({"nodes": "x" * (REMEMBERED_OCTETS // 4)})
    desk = RequestDesk(handler, ManualClock())
    for number in range(20):
        await ask(desk, number)
    await ask(desk, 19)
    assert len(handler.requests) == 20
    await ask(desk, 0)
    assert len(handler.requests) == 21


async def test_faults_are_logged_whole_a_few_times_only() -> None:
    """Who may ask can not fill the log: the others are counted, and refer to the last one."""
    handler, clock = Recorder(), ManualClock()
    handler.failure = ZeroDivisionError()
    desk = RequestDesk(handler, clock)
    with capture_logs() as logs:
        answers = [await ask(desk, number) for number in range(1_000)]
        clock.now += TRACEBACKS_PER_S
        await ask(desk)
    assert len(logs) == TRACEBACKS + 1
    assert logs[-1]["unlogged_before"] == 1_000 - TRACEBACKS
    logged = {entry["reference"] for entry in logs}
    assert {answer["data"]["reference"] for answer in answers} < logged


async def test_an_end_ends_what_is_being_executed() -> None:
    """Nothing is left behind when the desk is closed."""
    handler = Recorder()
    handler.may_end.clear()
    desk = RequestDesk(handler, ManualClock())
    asked = [desk.begin("run/stop", b"{}", retained=False) for _ in range(3)]
    await asyncio.sleep(0)
    await desk.close()
    assert all(isinstance(task, asyncio.Task) and task.cancelled() for task in asked)
    await desk.close()


async def test_an_unexpected_exception_becomes_internal() -> None:
    """The response has a reference that the log has too, and no word of the exception."""
    handler = Recorder()
    handler.failure = ZeroDivisionError("secret detail")
    desk = RequestDesk(handler, ManualClock())
    with capture_logs() as logs:
        answer = await ask(desk, "a1")
    assert (answer["status"], answer["code"], answer["transaction"]) == ("error", "internal", "a1")
    assert "secret detail" not in json.dumps(answer)
    assert logs[0]["reference"] == answer["data"]["reference"]
    assert logs[0]["exc_info"]


async def test_a_response_that_is_not_json_becomes_internal() -> None:
    """Octets in a handler's data, such as a key, leave nothing in the answer."""
    handler = Recorder()
    handler.response = Response({"key": bytes(16)})
    with capture_logs():
        answer = await ask(RequestDesk(handler, ManualClock()))
    assert answer["code"] == ErrorCode.INTERNAL


async def test_a_flood_is_answered_busy_and_may_try_again() -> None:
    """Past the limit requests are refused at once; the refusal is not stored."""
    handler = Recorder()
    handler.may_end.clear()
    desk = RequestDesk(handler, ManualClock())
    async with asyncio.TaskGroup() as group:
        for number in range(MAX_AT_ONCE):
            group.create_task(ask(desk, number))
        await asyncio.sleep(0)
        assert (await ask(desk, "late"))["code"] == ErrorCode.BUSY
        handler.may_end.set()
    assert (await ask(desk, "late"))["status"] == "ok"


async def test_a_refused_request_does_not_reach_the_handler() -> None:
    """A retained command is answered by the desk itself."""
    handler = Recorder()
    desk = RequestDesk(handler, ManualClock())
    answer = json.loads(await desk.answer("run/start", b"{}", retained=True))
    assert answer["code"] == "retained_command"
    assert handler.requests == []


async def test_a_cancelled_execution_is_not_remembered() -> None:
    """After a cancellation the same transaction is executed anew."""
    handler = Recorder()
    handler.may_end.clear()
    desk = RequestDesk(handler, ManualClock())
    task = asyncio.create_task(ask(desk, "a1"))
    await asyncio.sleep(0)
    await asyncio.sleep(0)  # now the handler has it
    assert len(handler.requests) == 1
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    handler.may_end.set()
    assert (await ask(desk, "a1"))["status"] == "ok"
    assert len(handler.requests) == 2
