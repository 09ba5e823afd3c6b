"""What the PTX of a generated kernel leaves to ptxas must not change its results."""

from __future__ import annotations

import pytest

from fa4gen.codegen import render
from fa4gen.compile.driver import compile_kernel
from fa4gen.core.problem import AttentionProblem
from fa4gen.hardware import load_arch
from fa4gen.ptx import parse
from fa4gen.ptx.ir import Entry, Instruction, Register
from fa4gen.space import space_for


def compiled(head_dim: int) -> Entry:
    arch = load_arch("sm90")
    problem = AttentionProblem.from_dict(
        {"batch": 1, "seqlen_q": 256, "num_heads_q": 1, "head_dim": head_dim}
    )
    config = space_for("sm90").default(problem.signature)
    artifact = compile_kernel(render(problem.signature, config, arch))
    (entry,) = parse(artifact.ptx()).entries
    return entry


def writers(entry: Entry) -> dict[int, list[Instruction]]:
    """The instructions whose first operand is each register, by slot."""
    found: dict[int, list[Instruction]] = {}
    for inst in entry.instructions:
        if inst.operands and isinstance(inst.operands[0], Register):
            found.setdefault(inst.operands[0].slot, []).append(inst)
    return found


@pytest.mark.parametrize("head_dim", [64, 128])
def test_equal_maxima_rescale_by_exactly_one(head_dim: int) -> None:
    """``exp2(old * scale - new * scale)`` is not 1 for equal maxima once ptxas fuses one product.

    What is left of the other's rounding then multiplies the row sum once per block: over 75600
    keys the LSE was off by 1.07e-4, measured on an H200, 2026-11-21.
    """
    entry = compiled(head_dim)
    made_by = writers(entry)
    exponentials = [i for i in entry.instructions if i.opcode.startswith("ex2.")]
    assert len(exponentials) > head_dim
    for ex2 in exponentials:
        argument = ex2.operands[1]
        assert isinstance(argument, Register)
        for inst in made_by[argument.slot]:
            if inst.opcode not in ("sub.f32", "add.f32"):
                continue
            factors = [
                source.opcode
                for operand in inst.operands[1:]
                if isinstance(operand, Register)
                for source in made_by[operand.slot]
            ]
            assert "mul.f32" not in factors, f"PTX line {inst.line} may be fused with a product"
