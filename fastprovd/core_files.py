"""No core file: a process that systemd's watchdog kills would leave its keys in one."""

from __future__ import annotations

import resource
from typing import Final

import structlog

# Less than a page, so that no file is written; and the one value with which the kernel (do_coredump
# in fs/coredump.c) starts no program of kernel.core_pattern either, which gets a core whatever the
# limit is.
_NO_CORE: Final = 1

log = structlog.get_logger(__name__)


def forbid() -> None:
    """See that this process and its children leave no core file."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard in (0, _NO_CORE):
        return
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (_NO_CORE, _NO_CORE))
    except (OSError, ValueError) as error:  # a sandbox may forbid it; the unit has a limit itself
        log.debug("core_files_not_forbidden", reason=str(error))
