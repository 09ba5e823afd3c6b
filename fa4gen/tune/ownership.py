"""Which process asked for a trial, and whether it still lives.

Optuna's heartbeat does not work with ask and tell, and a trial that stays RUNNING for ever repels
the sampler from its neighbourhood; so every trial carries its owner.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STALE_AFTER_S = 6 * 3600.0
"""Age at which a trial of a host that cannot be asked counts as abandoned."""
UNMARKED_AFTER_S = 60.0
"""Age at which a trial without an owner counts as abandoned."""


def process_start(pid: int) -> str:
    """When a live process started, in kernel ticks since boot; empty for a dead or hidden one.

    Together with the pid it names a process even after the pid was given to another.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return ""
    # The second field, the command in brackets, may contain spaces; field 3 is the state and
    # field 22 the start. A zombie is dead: only its parent has not noticed.
    state, *rest = stat.rpartition(")")[2].split()
    return "" if state in "ZX" else rest[18]


def this_process() -> dict[str, Any]:
    """The owner mark of this process, made now."""
    pid = os.getpid()
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "started": process_start(pid),
        "asked_at": time.time(),
    }


def abandoned(owner: Mapping[str, Any] | None, asked_at: datetime | None) -> bool:
    """Whether a RUNNING trial with this mark has no process any more.

    A trial without a mark lies between its creation and its marking, which takes milliseconds,
    or its process died there: :data:`UNMARKED_AFTER_S` tells them apart.

    Args:
        owner: what :func:`this_process` gave, if it was stored.
        asked_at: the trial's start as Optuna has it: local time in memory, UTC in a database.
    """
    if owner is None:
        if asked_at is None:
            return False
        utc = datetime.now(UTC).replace(tzinfo=None)
        age_s = min(now - asked_at for now in (datetime.now(), utc)).total_seconds()
        return age_s > UNMARKED_AFTER_S
    if owner["host"] != socket.gethostname():
        return time.time() - float(owner["asked_at"]) > STALE_AFTER_S
    return not _alive(int(owner["pid"]), str(owner["started"]))


def _alive(pid: int, started: str) -> bool:
    if started:
        return process_start(pid) == started
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
