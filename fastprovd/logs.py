"""Set up structlog: one handler, JSON or console, and nothing secret in any line."""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal, TextIO

import structlog
from structlog.typing import Processor

from fastprovd.lasting import lasting
from fastprovd.mesh.keys import AppKey, DevKey, NetKey

HIDDEN: Final = "<hidden>"

# A word of `net_key`, `netKey` or `NET KEY`; digits and punctuation are between words.
_WORD: Final = re.compile("[A-Z]?[a-z]+|[A-Z]+(?![a-z])")
_SECRET_WORDS: Final = frozenset(
    {"key", "netkey", "appkey", "devkey", "password", "random", "confirmation", "secret", "token"}
)
_AUTH_VALUE: Final = "authvalue"
# What a name is about is its last word: these are facts about a secret, not the secret.
_HARMLESS_LAST_WORDS: Final = frozenset({"index", "indexes", "count", "left", "file", "refresh"})


def configure(
    level: str = "info",
    format: Literal["auto", "json", "console"] = "auto",
    stream: TextIO | None = None,
) -> None:
    """Log our events from `level` on to `stream` (standard error), other libraries' from INFO on.

    Whoever logs never waits for it: see `lasting`.

    `auto` is console on a terminal, else JSON. bleak's debug level prints whole D-Bus messages,
    so no library gets below INFO.
    """
    stream = lasting(sys.stderr if stream is None else stream)
    console = stream.isatty() if format == "auto" else format == "console"
    if not console:
        stream = lasting(stream, _lines_missing)
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    # Both traceback formats are plain: the others print local variables, keys among them.
    renderers: list[Processor] = (
        [
            structlog.dev.ConsoleRenderer(
                colors=stream.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
        ]
        if console
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    )
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                redact,
                *renderers,
            ],
        )
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.stdlib.BoundLogger,
        logger_factory=structlog.stdlib.LoggerFactory(),
    )
    ours = logging.getLevelNamesMapping()[level.upper()]
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(ours, logging.INFO))
    logging.getLogger("fastprovd").setLevel(ours)


def _lines_missing(lines: int) -> str:
    at = datetime.now(UTC).isoformat().replace("+00:00", "Z")
    line = {"lines": lines, "event": "log_lines_missing", "level": "warning", "timestamp": at}
    return json.dumps(line)


def redact(
    logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Return the event with every secret replaced; a structlog processor."""
    return {name: _redacted(name, value) for name, value in event_dict.items()}


def _redacted(name: str, value: Any) -> Any:
    """Return `value`, or what may be shown of it, at any depth."""
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    if isinstance(value, NetKey | AppKey | DevKey):
        return HIDDEN
    if value is not None and _is_secret(name):
        return HIDDEN
    if isinstance(value, Mapping):
        return {str(inner): _redacted(str(inner), value[inner]) for inner in value}
    if isinstance(value, list | tuple | set | frozenset) and name != "exc_info":
        return [_redacted(name, inner) for inner in value]
    if is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _redacted(field.name, getattr(value, field.name)) for field in fields(value)
        }
    return value


def _is_secret(name: str) -> bool:
    """Whether values of this name carry a secret, by the whole words of the name."""
    words = [word.lower() for word in _WORD.findall(name)]
    if not words or words[-1] in _HARMLESS_LAST_WORDS:
        return False
    singular = {word.removesuffix("s") for word in words}
    return not _SECRET_WORDS.isdisjoint(singular) or _AUTH_VALUE in "".join(words)
