"""The opcode table: what the emulator knows, for decoding, traces and coverage alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from fa4gen.emulator.builder import Builder
    from fa4gen.emulator.warp import Signal, Warp

Op: TypeAlias = "Callable[[Warp], int | Signal | None]"
"""A decoded instruction. It runs for the lanes of ``warp.mask`` and returns ``None`` to go on, the
index of the instruction to jump to, or a signal (a wait, an exit, a divergence)."""


class Pipe(StrEnum):
    """The part of an SM that executes an instruction."""

    ALU = "alu"
    """Integer and logic."""
    FMA = "fma"
    """Float multiply and add."""
    MUFU = "mufu"
    """Transcendentals."""
    CONVERT = "convert"
    LSU = "lsu"
    """Shared, global, local and parameter memory."""
    TMA = "tma"
    """Bulk and tensor copies."""
    TENSOR = "tensor"
    """wgmma, mma.sync, tcgen05.mma."""
    TMEM = "tmem"
    """Loads, stores and copies of tensor memory."""
    BARRIER = "barrier"
    SHUFFLE = "shuffle"
    """Shuffles, votes, elections, reductions across a warp."""
    CONTROL = "control"
    """Branches, exits, register hand-over."""
    NONE = "none"
    """No work: fences, hints, pragmas."""


@dataclass(frozen=True, slots=True)
class OpcodeSpec:
    """One family of instructions.

    Attributes:
        mnemonic: The leading parts of the opcode: ``mbarrier.try_wait``.
        pipe: Where it executes.
        build: Makes the operation of one instruction; it takes every modifier it knows from the
            builder, and what is left over makes the instruction unsupported.
        own_guard: Whether ``build`` deals with ``@p`` itself (branches do).
        isa: Section of the PTX ISA, version 9.1.
    """

    mnemonic: str
    pipe: Pipe
    build: Callable[[Builder], Op]
    own_guard: bool = False
    isa: str = ""


_TABLE: dict[str, OpcodeSpec] = {}


def instruction(
    *mnemonics: str, pipe: Pipe, isa: str = "", own_guard: bool = False
) -> Callable[[Callable[[Builder], Op]], Callable[[Builder], Op]]:
    """Enter a build function into the table under each of ``mnemonics``."""

    def enter(build: Callable[[Builder], Op]) -> Callable[[Builder], Op]:
        for mnemonic in mnemonics:
            if mnemonic in _TABLE:
                raise ValueError(f"{mnemonic} is in the opcode table already")
            _TABLE[mnemonic] = OpcodeSpec(mnemonic, pipe, build, own_guard, isa)
        return build

    return enter


def lookup(parts: tuple[str, ...]) -> OpcodeSpec | None:
    """The family with the longest mnemonic that ``parts`` begins with."""
    for length in range(len(parts), 0, -1):
        spec = _TABLE.get(".".join(parts[:length]))
        if spec is not None:
            return spec
    return None


def known() -> tuple[OpcodeSpec, ...]:
    """Every family, by mnemonic."""
    return tuple(_TABLE[name] for name in sorted(_TABLE))
