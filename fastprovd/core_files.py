"""No core file: a process that systemd's watchdog kills would leave its keys in one."""

from __future__ import annotations

import os
import resource
from typing import Final

import structlog

# Less than a page, so that no file is written; and the one value with which the kernel (do_coredump
# in fs/coredump.c) starts no program of kernel.core_pattern either, which gets a core whatever the
# limit is.
_NO_CORE: Final = 1
_PR_SET_DUMPABLE: Final = 4  # linux/prctl.h

log = structlog.get_logger(__name__)


def forbid() -> None:
    """See that this process leaves no core file, and its children none either.

    Its files in /proc belong to root from now on: debuggers of the same user are kept out too.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    if hard not in (0, _NO_CORE):
        try:
            resource.setrlimit(resource.RLIMIT_CORE, (_NO_CORE, _NO_CORE))
        except (OSError, ValueError) as error:  # a sandbox may forbid it; the unit has a limit too
            log.debug("core_files_not_forbidden", reason=str(error))
    # A limit of 0, as units have it, does not keep a program of kernel.core_pattern from a core.
    try:
        import ctypes  # it wants executable memory with an old libffi, which the unit forbids

        if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    except (OSError, AttributeError, ImportError, MemoryError) as error:
        log.debug("process_stays_dumpable", reason=str(error))
