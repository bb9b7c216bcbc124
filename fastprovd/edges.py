"""Edges at which an exception of any kind ends nothing but the call that it was raised in."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec

import structlog

log = structlog.get_logger(__name__)

P = ParamSpec("P")


def guarded(call: Callable[P, object]) -> Callable[P, None]:
    """Return a callback for a loop, a library or a signal; what `call` raises goes into the log.

    The first exception with its traceback, the others counted: what fails for one advertisement
    may fail for each.
    """
    failures = 0

    @wraps(call)  # libraries look at the parameters
    def callback(*args: P.args, **kwargs: P.kwargs) -> None:
        nonlocal failures
        try:
            call(*args, **kwargs)
        except Exception as error:  # at the edge: nobody is there who could take it
            failures += 1
            name = getattr(call, "__qualname__", repr(call))
            if failures == 1:
                log.exception("callback_failed", callback=name)
            else:
                log.debug("callback_failed", callback=name, failures=failures, reason=repr(error))

    return callback
