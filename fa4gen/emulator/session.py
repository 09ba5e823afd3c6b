"""Running a compiled host function, with every kernel it launches, on tensors of this process."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import InputError
from fa4gen.emulator.emulate import Emulation, Options, emulate
from fa4gen.emulator.findings import Finding, FindingKind
from fa4gen.emulator.launch import CompiledHost, Launch, PackedArguments, capture, tensors_in
from fa4gen.emulator.machine import GridShape
from fa4gen.emulator.memory import Block, Buffer, GlobalMemory

MAX_TENSOR_BYTES = 1 << 30
"""Memory of all tensors together; an emulation of more would not end in a working day."""
POLICIES = ("eager", "lazy", "seed:0")
"""What :func:`run` tries if nothing is said: both extremes and one sample in between."""


@dataclass(frozen=True, slots=True)
class PolicyRun:
    """The launches of a host function under one policy."""

    policy: str
    launches: tuple[Emulation, ...]

    @property
    def completed(self) -> bool:
        """Whether every kernel ran to its end."""
        return all(launch.completed for launch in self.launches)


@dataclass(frozen=True, slots=True)
class Report:
    """What a host function did.

    The tensors hold the results of the first policy.
    """

    runs: tuple[PolicyRun, ...]
    differences: tuple[Finding, ...]
    """Results that depend on the policy."""

    @property
    def findings(self) -> tuple[Finding, ...]:
        """Everything wrong under any policy; what several have in common is there once."""
        unique: dict[object, Finding] = {}
        for found in (*(f for r in self.runs for e in r.launches for f in e.findings),):
            place = found.place and found.place.instruction.index
            other = found.other and found.other.instruction.index
            key = (found.kind, place, other, found.message if place is None else "")
            unique.setdefault(key, found)
        return (*unique.values(), *self.differences)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def executed(self) -> int:
        """Warp instructions over all launches and policies."""
        return sum(launch.executed for run in self.runs for launch in run.launches)


def run(
    host: CompiledHost,
    *arguments: object,
    policies: Sequence[str] = POLICIES,
    options: Options | None = None,
) -> Report:
    """Call ``host`` once per policy, from the same start, and compare what comes out.

    Args:
        host: From :mod:`fa4gen.compile.emulation`.
        arguments: What it takes: tensors in CPU memory (NumPy, torch, anything with DLPack) and
            numbers, or one :class:`PackedArguments`.
        policies: ``eager``, ``lazy``, ``seed:N``.
        options: Everything but the policy.

    Raises:
        InputError: the tensors are too large, or no policy was given.
        CaptureFailed: the host function could not be run.
        PtxError, UnsupportedInstruction: a kernel cannot be emulated.
    """
    if not policies:
        raise InputError("policies: got none, needed at least one of eager, lazy, seed:N")
    options = options or Options()
    buffers = _buffers(arguments)
    memory = GlobalMemory(buffers)
    start = [block.data.copy() for block in memory.blocks]
    runs: list[PolicyRun] = []
    results: list[list[npt.NDArray[np.uint8]]] = []
    for policy in policies:
        _restore(memory.blocks, start)
        launches = _run_once(host, arguments, buffers, replace(options, policy=policy))
        runs.append(PolicyRun(policy, launches))
        results.append([block.data.copy() for block in memory.blocks])
    _restore(memory.blocks, results[0])
    return Report(tuple(runs), tuple(_differences(memory.blocks, runs, results)))


def shape_of(launch: Launch) -> GridShape:
    """The shape of a launch, for the machine."""
    return GridShape(
        launch.grid, launch.block, launch.cluster, launch.dynamic_smem, launch.regs_per_thread
    )


def _run_once(
    host: CompiledHost, arguments: Sequence[object], buffers: Sequence[Buffer], options: Options
) -> tuple[Emulation, ...]:
    """Emulate each launch inside the launch call, so that the next one starts from its results."""
    done: list[Emulation] = []

    def execute(launch: Launch) -> None:
        if launch.ptx is None:
            raise InputError(f"kernel {launch.name}: got no PTX for it, only machine code")
        shape = shape_of(launch)
        done.append(emulate(launch.ptx, shape, launch.params, buffers, options, launch.name))

    capture(host, *arguments, on_launch=execute)
    return tuple(done)


def _buffers(arguments: Sequence[object]) -> list[Buffer]:
    """The memory of every tensor among the arguments; tensors that overlap become one buffer."""
    values: list[object] = []
    for argument in arguments:
        values += argument.owners if isinstance(argument, PackedArguments) else [argument]
    extents = [tensor.extent for tensor in tensors_in(values)]
    buffers: list[Buffer] = []
    for (low, high), name in sorted((e, f"tensor {i}") for i, e in enumerate(extents)):
        if buffers and low < buffers[-1].address + buffers[-1].size:
            last = buffers.pop()
            end = max(high, last.address + last.size)
            buffers.append(Buffer(last.address, end - last.address, f"{last.name} with {name}"))
        else:
            buffers.append(Buffer(low, high - low, name))
    total = sum(buffer.size for buffer in buffers)
    if total > MAX_TENSOR_BYTES:
        raise InputError(
            f"tensors: got {total} bytes, allowed: {MAX_TENSOR_BYTES}; emulate a smaller problem, "
            "such as fewer heads or shorter sequences"
        )
    return buffers


def _restore(blocks: Sequence[Block], contents: Sequence[npt.NDArray[np.uint8]]) -> None:
    for block, content in zip(blocks, contents, strict=True):
        block.data[:] = content


def _differences(
    blocks: Sequence[Block],
    runs: Sequence[PolicyRun],
    results: Sequence[Sequence[npt.NDArray[np.uint8]]],
) -> list[Finding]:
    found = []
    complete = [at for at, policy_run in enumerate(runs) if policy_run.completed]
    for at in complete[1:]:
        for block, first, other in zip(blocks, results[complete[0]], results[at], strict=True):
            wrong = np.flatnonzero(first != other)
            if len(wrong):
                found.append(
                    Finding(
                        FindingKind.DIVERGED,
                        f"{block.name}: {len(wrong)} of {len(first)} bytes differ between the "
                        f"policies {runs[complete[0]].policy} and {runs[at].policy}, the first at "
                        f"byte {int(wrong[0])}",
                    )
                )
    return found
