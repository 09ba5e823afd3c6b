"""Messages between parent and worker survive the trip, and nothing else does."""

from __future__ import annotations

import math

import pytest

from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import EvaluationError
from fa4gen.core.evaluation import Execution, L2State, MeasurementPolicy, Thermal
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.protocol import (
    CheckReply,
    CheckRequest,
    Failure,
    FailureKind,
    GpuConditions,
    GpuIdentity,
    KernelRef,
    Message,
    Progress,
    Ready,
    Shutdown,
    Stage,
    TimeReply,
    TimeRequest,
    decode,
    encode,
)
from fa4gen.evaluate.timing import SHOOTOUT_PLAN, TRIAL_PLAN

PROBLEM = AttentionProblem(2, 128, 256, 8, 2, 64, 64, DType.FP16, causal=True)
REF = KernelRef("abc", "/some where/x.o", KernelConfig(exp2_poly_fraction=0.25), 1e-3)
POLICY = MeasurementPolicy(Execution.EAGER, L2State.WARM, Thermal.BURST)
CONDITIONS = GpuConditions(1500, 650.5, 71, ("sw_power_cap",), (42,))


@pytest.mark.parametrize(
    "message",
    [
        CheckRequest(PROBLEM, REF, 7),
        CheckRequest(PROBLEM, REF, 8, own_shape_only=True),
        TimeRequest(PROBLEM, (REF, REF), POLICY, SHOOTOUT_PLAN, 1),
        TimeRequest(PROBLEM, (REF,), POLICY, TRIAL_PLAN, 1),
        Shutdown(),
        Progress(Stage.LAUNCH, "two\nlines"),
        Ready(GpuIdentity("GPU", "ff", 4, 1 << 20, "1", "2", "3", "")),
        CheckReply(("normal", "large"), 0.001, math.inf, "large"),
        TimeReply(((1.5, 2.0), (1.0, 2.5)), 4, 2, True, CONDITIONS),
        TimeReply(((1.5,),), 4, 2, False, GpuConditions()),
        Failure(FailureKind.WRONG, "kind: row 3", False, "abc"),
    ],
    ids=lambda message: type(message).__name__,
)
def test_round_trip(message: Message) -> None:
    line = encode(message)
    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert decode(line) == message


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"not json",
        b"[1, 2]",
        b'{"stage": "launch"}',
        b'["Explode", {}]',
        b'["Progress", {"stage": "lunch"}]',
        b'["Progress", {"stage": "launch", "extra": 1}]',
        b'["Progress", {}]',
        b'["Ready", {"identity": {"gpu_name": 3}}]',
        b'["TimeReply", {"times_us": [1.0]}]',
        b'["Failure", {"kind": "wrong", "message": "x", "fatal": 0}]',
    ],
)
def test_anything_else_is_refused(line: bytes) -> None:
    with pytest.raises(EvaluationError, match="same fa4gen"):
        decode(line)


def test_an_illegal_configuration_does_not_get_through() -> None:
    line = encode(CheckRequest(PROBLEM, REF, 7)).replace(b'"tile_m": 128', b'"tile_m": 129')
    with pytest.raises(EvaluationError, match="tile_m"):
        decode(line)
