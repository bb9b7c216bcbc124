"""From a request's payload to its response: each transaction is executed once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

import structlog

from fastprovd.clock import Clock
from fastprovd.publish.exchange import (
    ErrorCode,
    Request,
    Response,
    parse_request,
    response_payload,
)

log = structlog.get_logger(__name__)

REMEMBERED: Final = 256
REMEMBERED_FOR_S: Final = 600.0
REMEMBERED_OCTETS: Final = 8 * 2**20  # some dozen lists of the largest networks
MAX_AT_ONCE: Final = 8  # handlers wait for boards; more requests than this is a flood

TRACEBACKS: Final = 5
TRACEBACKS_PER_S: Final = 60.0
"""So many faults are logged whole in so many seconds: who may ask must not fill a disk."""

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The payload of a response, and whether it is a result and no refusal."""

    payload: bytes
    is_result: bool


@dataclass(slots=True)
class _Execution:
    task: asyncio.Task[Answer]
    since: float


class RequestDesk:
    """Answers requests through `handler`.

    A repeated (command, transaction) gets the result of the first, also while that is still being
    executed. A refusal is not kept: a later repeat is tried again. An exception of the handler
    becomes `internal` with a reference to the log.
    """

    def __init__(self, handler: Handler, clock: Clock) -> None:
        """Take the handler that executes well-formed requests."""
        self._handler = handler
        self._clock = clock
        self._executions: dict[tuple[str, str | int], _Execution] = {}
        self._running: set[asyncio.Task[Answer]] = set()
        self._faults: list[float] = []  # when the last ones were logged
        self._reference = ""
        self._unlogged = 0

    def begin(
        self,
        command: str,
        payload: bytes,
        *,
        retained: bool,
        may_clear: bool = False,
        max_octets: int | None = None,
    ) -> bytes | asyncio.Task[Answer]:
        """Return the payload of the response, or who is making it; call it in the event loop.

        `may_clear` as for `parse_request`; `max_octets` is how long the response may be.
        """
        request = parse_request(command, payload, retained=retained, may_clear=may_clear)
        if isinstance(request, Response):
            return response_payload(request, max_octets)
        key = None if request.transaction is None else (command, request.transaction)
        now = self._clock.monotonic()
        self._forget_old(now)
        if key is not None and (known := self._executions.get(key)) and not _refused(known.task):
            return known.task
        if len(self._running) >= MAX_AT_ONCE:
            error = f"{MAX_AT_ONCE} requests are being executed; try again"
            refusal = Response(code=ErrorCode.BUSY, error=error, transaction=request.transaction)
            return response_payload(refusal, max_octets)
        task = asyncio.get_running_loop().create_task(
            self._execute(request, max_octets), name=f"request[{command}]"
        )
        self._running.add(task)
        if key is not None:
            self._make_room()
            self._executions[key] = _Execution(task, now)
        task.add_done_callback(partial(self._ended, key))
        return task

    async def answer(self, command: str, payload: bytes, *, retained: bool) -> bytes:
        """Return the payload of the response; raises nothing but CancelledError.

        Who is cancelled ends the execution that it began, not one that it only repeated.
        """
        before = set(self._running)
        answer = self.begin(command, payload, retained=retained)
        if isinstance(answer, bytes):
            return answer
        is_repeat = answer in before or answer.done()
        return (await (asyncio.shield(answer) if is_repeat else answer)).payload

    async def close(self) -> None:
        """End what is being executed."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)

    def _ended(self, key: tuple[str, str | int] | None, task: asyncio.Task[Answer]) -> None:
        self._running.discard(task)
        if key is None or not _refused(task):
            return
        known = self._executions.get(key)
        if known is not None and known.task is task:
            del self._executions[key]

    def _forget_old(self, now: float) -> None:
        """Forget the results of requests that came too long ago; the oldest are in front."""
        for key, execution in list(self._executions.items()):
            if now - execution.since <= REMEMBERED_FOR_S:
                break
            if execution.task.done():
                del self._executions[key]

    def _make_room(self) -> None:
        ended = {key: each.task for key, each in self._executions.items() if each.task.done()}
        octets = {key: _octets(task) for key, task in ended.items()}
        excess = sum(octets.values()) - REMEMBERED_OCTETS
        for key in ended:
            if len(self._executions) < REMEMBERED and excess <= 0:
                break
            excess -= octets[key]
            del self._executions[key]

    async def _execute(self, request: Request, max_octets: int | None) -> Answer:
        try:
            response = await self._handler(request)
            answer = replace(response, transaction=request.transaction)
            return Answer(response_payload(answer, max_octets), response.code is None)
        except Exception as error:  # noqa: BLE001 - logged there; a request must not end the daemon
            reference = self._log_fault(request, error)
            refusal = Response(
                code=ErrorCode.INTERNAL,
                error=f"internal error; look for reference {reference} in the log",
                data={"reference": reference},
                transaction=request.transaction,
            )
            return Answer(response_payload(refusal, max_octets), is_result=False)

    def _log_fault(self, request: Request, error: Exception) -> str:
        """Log an exception, or count it beside the last one when there are too many of them."""
        now = self._clock.monotonic()
        self._faults = [since for since in self._faults if now - since < TRACEBACKS_PER_S]
        if len(self._faults) >= TRACEBACKS:
            self._unlogged += 1
            return self._reference
        self._faults.append(now)
        self._reference = uuid.uuid4().hex[:8]
        log.error(
            "request_failed",
            command=request.command,
            reference=self._reference,
            unlogged_before=self._unlogged,
            exc_info=error,
        )
        self._unlogged = 0
        return self._reference


def _refused(task: asyncio.Task[Answer]) -> bool:
    return task.done() and (task.cancelled() or not task.result().is_result)


def _octets(task: asyncio.Task[Answer]) -> int:
    return 0 if task.cancelled() else len(task.result().payload)
