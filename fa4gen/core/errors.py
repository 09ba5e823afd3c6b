"""The errors a user can meet, in one tree.

::

    Fa4genError
    ├── ProblemError            an AttentionProblem that makes no sense
    ├── ConfigError             a KernelConfig with an unknown knob or an illegal value
    ├── ResourceError           a data file of fa4gen is missing or malformed
    ├── UnknownName             a SKU, arch, knob, sampler ... that does not exist
    ├── NoFeasibleKernel        every candidate was refused; the reasons are attached
    ├── RenderError             a template failed to render
    ├── CompileError            CuTe-DSL or ptxas refused a rendered kernel
    │   ├── CompileTimeout      the compile took too long and was killed
    │   └── CompileCrash        the compiler's process died of the kernel
    ├── CompilerUnavailable     the compiler itself cannot run; no kernel is to blame
    ├── MissingDependency       an optional package is needed; the message says which extra
    ├── StoreError              the tuning database cannot be used
    │   ├── StoreCorrupt        the file is not a healthy SQLite database
    │   ├── StoreTooNew         written by a newer fa4gen
    │   ├── StoreReadOnly       opened where writing is not allowed
    │   └── StoreBusy           another process held the lock for too long
    ├── EvaluationError         an evaluator itself broke (not the kernel it was given)
    ├── EmulationError          a kernel cannot be emulated, or broke a rule while it was
    │   ├── PtxError            PTX text that cannot be parsed, or is for another machine
    │   ├── UnsupportedInstruction  an opcode or modifier the emulator does not know
    │   ├── CaptureFailed       the launch of a compiled kernel could not be recorded
    │   ├── KernelFault         the kernel did what hardware would trap on or leave undefined
    │   ├── Deadlock            every warp waits for something that cannot happen
    │   └── InstructionLimit    the kernel ran for more instructions than allowed
    ├── ReportError             a report cannot be made of what was given
    ├── InputError              tensors handed to the runtime that no kernel accepts
    └── CaptureError            a kernel's first use falls into a CUDA graph capture

Every message says: subject, what was got, what is allowed (with the arithmetic), the remedy.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Fa4genError(Exception):
    """Base of every error fa4gen raises on purpose; the CLI prints it as one line."""


class ProblemError(Fa4genError, ValueError):
    """An attention problem that makes no sense."""


class ConfigError(Fa4genError, ValueError):
    """A kernel configuration with an unknown knob or an illegal value."""


class ResourceError(Fa4genError):
    """A data file of fa4gen is missing or malformed."""


class UnknownName(Fa4genError, KeyError):
    """A name that is not in the registry it was looked up in."""

    def __init__(self, kind: str, got: str, known: Iterable[str]) -> None:
        self.kind, self.got, self.known = kind, got, sorted(known)
        close = difflib.get_close_matches(got, self.known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        super().__init__(f"unknown {kind}: got {got!r}, known: {', '.join(self.known)}{hint}")

    def __str__(self) -> str:  # KeyError would print the repr of the message
        return str(self.args[0])


class NoFeasibleKernel(Fa4genError):
    """No configuration can run this problem on this hardware."""


class RenderError(Fa4genError):
    """A template failed to render, or rendered to something that is not Python."""


class CompileError(Fa4genError):
    """CuTe-DSL or ptxas refused a rendered kernel."""


class CompileTimeout(CompileError):
    """A compile took longer than its limit and was killed."""


class CompileCrash(CompileError):
    """The process that compiled a kernel died, and so did the one that tried again."""


class CompilerUnavailable(Fa4genError):
    """The compiler itself cannot run, or its pool was closed; no kernel is to blame."""


class MissingDependency(Fa4genError, ImportError):
    """An optional package is needed for what was asked."""


class StoreError(Fa4genError):
    """The tuning database cannot be used."""


class StoreCorrupt(StoreError):
    """The file is not a healthy SQLite database."""


class StoreTooNew(StoreError):
    """The database was written by a newer fa4gen."""


class StoreReadOnly(StoreError):
    """The database cannot be written where it lies."""


class StoreBusy(StoreError):
    """Another process held the database lock for longer than the time-out."""


class EvaluationError(Fa4genError):
    """An evaluator itself broke; the kernel it was given is not to blame."""


class EmulationError(Fa4genError):
    """A kernel cannot be emulated, or broke a rule while it was."""


class PtxError(EmulationError, ValueError):
    """PTX text that cannot be parsed, or that is for another machine."""


class UnsupportedInstruction(EmulationError):
    """An opcode, modifier or operand that the emulator does not know."""


class CaptureFailed(EmulationError):
    """The launch of a compiled kernel could not be recorded."""


class KernelFault(EmulationError):
    """The kernel did what hardware would trap on or leave undefined."""


class Deadlock(EmulationError):
    """Every warp waits for something that cannot happen."""


class InstructionLimit(EmulationError):
    """The kernel ran for more instructions than allowed."""


class ReportError(Fa4genError):
    """A report cannot be made of what was given."""


class InputError(Fa4genError, ValueError):
    """Tensors handed to the runtime that no kernel accepts."""


class CaptureError(Fa4genError, RuntimeError):
    """A kernel's first use falls into a CUDA graph capture, where it cannot be loaded."""
