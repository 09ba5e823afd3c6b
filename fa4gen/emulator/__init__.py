"""Runs the PTX of Hopper and Blackwell kernels on a CPU and says whether it is right.

:func:`run` takes a compiled host function, captures its launches and executes each kernel on the
tensors it was given, under several orders of asynchronous work. What it finds wrong, races and
deadlocks included, is in the :class:`Report`, and so is how often each instruction ran.
"""

from fa4gen.emulator.coverage import Coverage, coverage
from fa4gen.emulator.emulate import Emulation, Options, emulate
from fa4gen.emulator.findings import Finding, FindingKind
from fa4gen.emulator.machine import GridShape, Observer
from fa4gen.emulator.memory import Buffer
from fa4gen.emulator.session import POLICIES, PolicyRun, Report, run
from fa4gen.emulator.trace import Timeline

__all__ = [
    "POLICIES",
    "Buffer",
    "Coverage",
    "Emulation",
    "Finding",
    "FindingKind",
    "GridShape",
    "Observer",
    "Options",
    "PolicyRun",
    "Report",
    "Timeline",
    "coverage",
    "emulate",
    "run",
]
