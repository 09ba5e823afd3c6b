"""Running one launch of one kernel, and what comes out of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from fa4gen.core.errors import Deadlock, InputError, InstructionLimit, KernelFault
from fa4gen.emulator.decode import Program, decode
from fa4gen.emulator.findings import Finding, FindingKind, FindingLog
from fa4gen.emulator.machine import Cluster, Grid, GridShape, Observer, param_offsets
from fa4gen.emulator.memory import PARAM_WINDOW, Block, Buffer, GlobalMemory
from fa4gen.emulator.policy import Policy
from fa4gen.ptx import parse


@dataclass(frozen=True, slots=True)
class Options:
    """How a kernel is emulated.

    Attributes:
        policy: When asynchronous work completes: ``eager``, ``lazy`` or ``seed:N``.
        max_instructions: Warp instructions after which a kernel counts as endless.
        tensor_core: ``float64``: MMAs are exact sums rounded once; ``fused``: the truncating sums
            that Hopper and Blackwell are known to do.
        observer: Told of what happens, for traces.
    """

    policy: str = "eager"
    max_instructions: int = 500_000_000
    tensor_core: str = "float64"
    observer: Observer = field(default_factory=Observer)


@dataclass(frozen=True, slots=True)
class Emulation:
    """What one launch did.

    Attributes:
        findings: Everything wrong with it, in the order it was noticed.
        occurrences: How often each finding was made.
        warp_counts: For each warp of a CTA (by index, summed over CTAs), how often it executed each
            instruction of the entry: ``(warps, instructions)``.
        executed: Warp instructions in all.
    """

    program: Program
    shape: GridShape
    policy: str
    findings: tuple[Finding, ...]
    occurrences: tuple[int, ...]
    warp_counts: np.ndarray[tuple[int, int], np.dtype[np.int64]]
    executed: int
    printed: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.findings

    @property
    def completed(self) -> bool:
        """Whether the kernel ran to its end."""
        return not any(f.kind in (FindingKind.FAULT, FindingKind.DEADLOCK) for f in self.findings)

    def opcode_counts(self, warp: int | None = None) -> dict[str, int]:
        """Executions by opcode, of one warp of the CTA or of all."""
        counts = self.warp_counts[warp] if warp is not None else self.warp_counts.sum(axis=0)
        found: dict[str, int] = {}
        for inst, count in zip(self.program.entry.instructions, counts.tolist(), strict=True):
            if count:
                found[inst.opcode] = found.get(inst.opcode, 0) + count
        return found


def emulate(
    ptx: str | Program,
    shape: GridShape,
    params: Sequence[bytes],
    buffers: Sequence[Buffer],
    options: Options | None = None,
    name: str | None = None,
) -> Emulation:
    """Run a kernel; its stores go to the memory of this process.

    Args:
        ptx: The text of a module with one kernel, or a decoded kernel.
        params: The bytes of each parameter of the entry.
        buffers: The global memory it may touch.
        name: Of the kernel; needed if the module has several.

    Raises:
        PtxError: the text cannot be parsed, or is for an architecture that is not emulated.
        UnsupportedInstruction: it has an instruction that is not known.
        InputError: parameters that do not match the entry's.
    """
    options = options or Options()
    program = prepare(ptx, name) if isinstance(ptx, str) else ptx
    log = FindingLog()
    warps = -(-int(np.prod(shape.block)) // 32)
    counts = np.zeros((warps, len(program.ops)), np.int64)
    grid = Grid(
        program=program,
        shape=shape,
        memory=GlobalMemory(list(buffers)),
        params=_param_block(program, params),
        policy=Policy.parse(options.policy),
        log=log,
        observer=options.observer,
        max_instructions=options.max_instructions,
        tensor_core=options.tensor_core,
        on_cluster=lambda cluster: _add_counts(counts, cluster),
    )
    try:
        grid.run()
    except Deadlock as error:
        log.add(Finding(FindingKind.DEADLOCK, str(error)))
    except (KernelFault, InstructionLimit) as error:
        log.add(Finding(FindingKind.FAULT, str(error)))
    return Emulation(
        program=program,
        shape=shape,
        policy=options.policy,
        findings=tuple(log.findings),
        occurrences=tuple(log.counts),
        warp_counts=counts,
        executed=grid.executed,
        printed=tuple(grid.printed),
    )


@lru_cache(maxsize=32)
def prepare(ptx: str, name: str | None = None) -> Program:
    """Parse and decode a kernel: ``name``, or the only one. The same text is decoded once.

    Raises:
        PtxError, UnsupportedInstruction: see :func:`emulate`.
    """
    return decode(parse(ptx), name)


def _param_block(program: Program, params: Sequence[bytes]) -> Block:
    wanted = program.entry.params
    if len(params) != len(wanted):
        raise InputError(
            f"parameters: got {len(params)}, kernel {program.entry.name} has {len(wanted)}"
        )
    offsets = param_offsets(program)
    size = max((offsets[p.name] + p.size for p in wanted), default=0)
    data = np.zeros(-(-size // 16) * 16 + 16, np.uint8)
    for variable, value in zip(wanted, params, strict=True):
        if len(value) != variable.size:
            raise InputError(
                f"parameter {variable.name}: got {len(value)} bytes, it has {variable.size}"
            )
        at = offsets[variable.name]
        data[at : at + variable.size] = np.frombuffer(value, np.uint8)
    return Block(PARAM_WINDOW, data, "kernel parameters", writable=False)


def _add_counts(counts: np.ndarray[tuple[int, int], np.dtype[np.int64]], cluster: Cluster) -> None:
    for warp in cluster.warps:
        counts[warp.index] += np.array(warp.counts)
