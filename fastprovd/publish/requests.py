"""From a request's payload to its response: each transaction is executed once."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Final

import structlog

from fastprovd.clock import Clock
from fastprovd.publish.messages import (
    ErrorCode,
    Request,
    Response,
    parse_request,
    response_payload,
)

log = structlog.get_logger(__name__)

REMEMBERED: Final = 256
REMEMBERED_FOR_S: Final = 600.0
MAX_AT_ONCE: Final = 8  # handlers wait for boards; more requests than this is a flood

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(slots=True)
class _Answer:
    """The payload of a response, or the promise of it, and when its request came."""

    payload: asyncio.Future[bytes]
    since: float


class RequestDesk:
    """Answers requests through `handler`.

    A repeated (command, transaction) gets the stored response, also while the first is still
    being executed. An exception of the handler becomes `internal` with a reference to the log.
    """

    def __init__(self, handler: Handler, clock: Clock) -> None:
        """Take the handler that executes well-formed requests."""
        self._handler = handler
        self._clock = clock
        self._answers: dict[tuple[str, str | int] | None, _Answer] = {}
        self._running = 0

    async def answer(self, command: str, payload: bytes, *, retained: bool) -> bytes:
        """Return the payload of the response; raises nothing but CancelledError."""
        request = parse_request(command, payload, retained=retained)
        if isinstance(request, Response):
            return response_payload(request)
        key = None if request.transaction is None else (command, request.transaction)
        now = self._clock.monotonic()
        self._forget_old(now)
        if key in self._answers:
            return await asyncio.shield(self._answers[key].payload)
        if self._running >= MAX_AT_ONCE:
            error = f"{MAX_AT_ONCE} requests are being executed; try again"
            return response_payload(
                Response(code=ErrorCode.BUSY, error=error, transaction=request.transaction)
            )
        if key is None:
            return await self._execute(request)
        self._make_room()
        answer = _Answer(asyncio.get_running_loop().create_future(), now)
        self._answers[key] = answer
        try:
            answer.payload.set_result(await self._execute(request))
        except asyncio.CancelledError:
            answer.payload.cancel()
            del self._answers[key]
            raise
        return answer.payload.result()

    def _forget_old(self, now: float) -> None:
        ended = [key for key, answer in self._answers.items() if answer.payload.done()]
        for key in ended:
            if now - self._answers[key].since > REMEMBERED_FOR_S:
                del self._answers[key]

    def _make_room(self) -> None:
        if len(self._answers) >= REMEMBERED:
            del self._answers[next(k for k, a in self._answers.items() if a.payload.done())]

    async def _execute(self, request: Request) -> bytes:
        self._running += 1
        try:
            response = await self._handler(request)
            return response_payload(replace(response, transaction=request.transaction))
        except Exception:  # a request must not end the daemon
            reference = uuid.uuid4().hex[:8]
            log.exception("request_failed", command=request.command, reference=reference)
            return response_payload(
                Response(
                    code=ErrorCode.INTERNAL,
                    error=f"internal error; look for reference {reference} in the log",
                    data={"reference": reference},
                    transaction=request.transaction,
                )
            )
        finally:
            self._running -= 1
