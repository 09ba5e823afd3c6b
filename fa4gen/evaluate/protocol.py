"""What the parent and the GPU worker say to each other: frozen values as lines of JSON.

The parent sends one request; the worker answers with any number of :class:`Progress` lines and
then exactly one reply. Nothing in a line is ever executed.
"""

from __future__ import annotations

import json
import types
import typing
from dataclasses import asdict, dataclass, fields, is_dataclass
from enum import StrEnum
from typing import Any

from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import EvaluationError
from fa4gen.core.evaluation import MeasurementPolicy
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import CaseErrors
from fa4gen.evaluate.timing import TimingPlan


class Stage(StrEnum):
    """What the worker is about to do; each has its own deadline."""

    START = "start"
    """Importing torch, opening the device."""
    LOAD = "load"
    """Loading a compiled kernel."""
    LAUNCH = "launch"
    """Launching one kernel once and waiting for it."""
    CHECK = "check"
    """Computing references and comparing."""
    WARMUP = "warmup"
    """Bringing the card to its thermal state."""
    TIME = "time"
    """One batch of timed samples."""


class FailureKind(StrEnum):
    """Who is to blame when a request fails."""

    LAUNCH = "launch"
    """The kernel could not be loaded or launched, or the device reported an error after it."""
    WRONG = "wrong"
    """The kernel ran, and its result is wrong."""
    EVALUATOR = "evaluator"
    """Not the kernel: out of memory for the inputs, a broken installation, a bug of ours."""


@dataclass(frozen=True, slots=True)
class KernelRef:
    """A compiled kernel, as much of it as the worker needs."""

    artifact_id: str
    object_path: str
    config: KernelConfig
    exp2_error: float = 0.0
    """Largest relative error of its exp2; 0 for the hardware's own."""
    dtype: DType = DType.BF16
    """Of Q, K and V: 8-bit kernels are called in another way."""


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """Which card and which software; constant for the life of a worker."""

    gpu_name: str
    gpu_uuid_hash: str
    sm_count: int
    l2_bytes: int
    driver: str
    cuda: str
    torch: str
    nvml: str
    """Empty when NVML answers, else why it does not."""


@dataclass(frozen=True, slots=True)
class GpuConditions:
    """State of the card over one measurement."""

    sm_clock_mhz: int | None = None
    """Median over the batches."""
    power_w: float | None = None
    """Median over the batches."""
    temperature_c: int | None = None
    """Highest seen."""
    throttle: tuple[str, ...] = ()
    """Every reason seen."""
    other_processes: tuple[int, ...] = ()
    """Process ids, other than the worker's, seen on the GPU."""


@dataclass(frozen=True, slots=True)
class CheckRequest:
    """Compare one kernel with float64 attention on every kind of input."""

    problem: AttentionProblem
    kernel: KernelRef
    seed: int
    own_shape_only: bool = False
    """Leave out the small shapes, on which this kernel has passed already."""


@dataclass(frozen=True, slots=True)
class TimeRequest:
    """Time kernels in interleaved rounds; the first is the anchor.

    With two kernels the plan's early stop applies.
    """

    problem: AttentionProblem
    kernels: tuple[KernelRef, ...]
    policy: MeasurementPolicy
    plan: TimingPlan
    seed: int


@dataclass(frozen=True, slots=True)
class Shutdown:
    """Leave; no reply."""


@dataclass(frozen=True, slots=True)
class Progress:
    """The worker begins ``stage``; resets the parent's deadline."""

    stage: Stage
    label: str = ""
    """What of it, e.g. an input kind or an artifact id."""


@dataclass(frozen=True, slots=True)
class Ready:
    """First reply of a worker, unasked."""

    identity: GpuIdentity


@dataclass(frozen=True, slots=True)
class CheckReply:
    """The kernel is right; the case with the largest share of its allowance."""

    kinds: tuple[str, ...]
    max_error: float
    allowed: float
    worst_kind: str
    cases: tuple[CaseErrors, ...] = ()
    """Errors by kind of input."""


@dataclass(frozen=True, slots=True)
class TimeReply:
    """Microseconds per launch, by kernel and round."""

    times_us: tuple[tuple[float, ...], ...]
    launches: int
    """Launches in one sample."""
    buffers: int
    """Input sets rotated."""
    stopped_early: bool
    conditions: GpuConditions


@dataclass(frozen=True, slots=True)
class Failure:
    """The request failed; with ``fatal`` the worker leaves, for its CUDA context is spoilt."""

    kind: FailureKind
    message: str
    fatal: bool
    artifact_id: str = ""
    """The kernel that was running; empty when none was."""


Request = CheckRequest | TimeRequest | Shutdown
Reply = Ready | CheckReply | TimeReply | Failure
Message = Request | Reply | Progress

_MESSAGES: dict[str, type[Any]] = {
    kind.__name__: kind
    for kind in (
        CheckRequest,
        TimeRequest,
        Shutdown,
        Progress,
        Ready,
        CheckReply,
        TimeReply,
        Failure,
    )
}


def encode(message: Message) -> bytes:
    """One line, newline included."""
    return json.dumps([type(message).__name__, asdict(message)]).encode() + b"\n"


def decode(line: bytes | str) -> Message:
    """The inverse of :func:`encode`.

    Raises:
        EvaluationError: not one of our messages; the two sides run different versions.
    """
    try:
        name, values = json.loads(line)
        message: Message = _value(_MESSAGES[name], values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        shown = line[:200] if isinstance(line, str) else line[:200].decode(errors="replace")
        raise EvaluationError(
            f"worker message: got {shown!r} ({type(error).__name__}: {error}), allowed: one of "
            f"{', '.join(_MESSAGES)}; check that parent and worker run the same fa4gen"
        ) from error
    return message


def _value(kind: Any, plain: Any) -> Any:
    """``plain`` JSON as a value of type ``kind``.

    Raises:
        TypeError: it does not fit.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        inner = [argument for argument in arguments if argument is not type(None)]
        return None if plain is None else _value(inner[0], plain)
    if origin is tuple:
        return tuple(_value(arguments[0], item) for item in plain)
    if isinstance(kind, type) and is_dataclass(kind):
        hints = typing.get_type_hints(kind)
        known = {field.name for field in fields(kind)}
        if unknown := set(plain) - known:
            raise TypeError(f"{kind.__name__}: unknown field {', '.join(sorted(unknown))}")
        return kind(**{name: _value(hints[name], item) for name, item in plain.items()})
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return kind(plain)
    if kind is float and type(plain) is int:
        return float(plain)
    if not isinstance(plain, kind) or (isinstance(plain, bool) and kind is not bool):
        raise TypeError(f"got {plain!r}, allowed: {kind.__name__}")
    return plain
