"""How a trial ended, and where a number came from: two closed sets."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """How one trial ended."""

    OK = "ok"
    INFEASIBLE = "infeasible"
    RENDER_ERROR = "render_error"
    COMPILE_ERROR = "compile_error"
    LAUNCH_ERROR = "launch_error"
    TIMEOUT = "timeout"
    WRONG_RESULT = "wrong_result"
    CRASHED = "crashed"


class Source(StrEnum):
    """What stands behind a number; never mixed without saying so."""

    MEASURED = "measured"
    EMULATED = "emulated"
    MODELLED = "modelled"
