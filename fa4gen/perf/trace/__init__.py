"""Trace-driven cycle model: replays what a kernel executes on the pipes of an SM.

:func:`record` runs a kernel in the emulator and writes down what its warps did; :func:`time_tile`
replays that with a :class:`Timing`; :func:`predict_traced` extends it over the grid.
"""

from fa4gen.perf.trace.dataflow import ClusterSteps, steps_of
from fa4gen.perf.trace.machine_code import MachineCode
from fa4gen.perf.trace.predict import (
    NOT_MODELLED,
    TRACE_VERSION,
    hand_out,
    left_out,
    predict_traced,
)
from fa4gen.perf.trace.refine import machine_code_of
from fa4gen.perf.trace.replay import Replay, replay
from fa4gen.perf.trace.tape import Job, Tape, WarpTape, record
from fa4gen.perf.trace.tile import (
    Record,
    TileTapes,
    TileTiming,
    Walk,
    time_tile,
    trace_tiles,
)
from fa4gen.perf.trace.timing import Timing, load_timing

__all__ = [
    "NOT_MODELLED",
    "TRACE_VERSION",
    "ClusterSteps",
    "Job",
    "MachineCode",
    "Record",
    "Replay",
    "Tape",
    "TileTapes",
    "TileTiming",
    "Timing",
    "Walk",
    "WarpTape",
    "hand_out",
    "left_out",
    "load_timing",
    "machine_code_of",
    "predict_traced",
    "record",
    "replay",
    "steps_of",
    "time_tile",
    "trace_tiles",
]
