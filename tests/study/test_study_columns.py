"""The columns of the polynomial, and all that is computed, against the kernels themselves."""

from __future__ import annotations

import ast
from typing import Any

import numpy as np
import pytest

from fa4gen.codegen import render
from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import AttentionProblem, KernelSignature
from fa4gen.evaluate.correctness import Distribution
from fa4gen.feasibility import canonicalise, check
from fa4gen.hardware import Arch, load_arch
from fa4gen.numerics.online_softmax import SoftmaxRecipe, attention_as_kernel, kernel_scores
from fa4gen.space import space_for
from fa4gen.study.columns import polynomial_columns
from fa4gen.study.plans import exp2_split_plan

SIGNATURE = KernelSignature(DType.BF16, 64, 64, False, 1)
WANTED = {
    "sm90": ("TILE_N", "EXP2_POLY_FRACTION", "EXP2_POLY_PLACEMENT", "COLUMN_GROUPS"),
    "sm100": ("TILE_N", "FRAGMENT", "FRAGMENTS", "polynomial_pairs"),
}
RESULT = {"sm90": "EXP2_POLY_GROUPS", "sm100": "EXP2_POLY_PAIRS"}


def columns_in_kernel(config: KernelConfig, arch: Arch) -> set[int]:
    """What the generated module itself works out: its own lines, executed."""
    tree = ast.parse(render(SIGNATURE, config, arch).source)
    wanted = {*WANTED[arch.family], RESULT[arch.family]}
    values: dict[str, Any] = {}
    for node in tree.body:
        names = {getattr(node, "name", "")}
        if isinstance(node, ast.Assign):
            names = {n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name)}
        if names & wanted or any(name.startswith("EXP2_POLY") for name in names):
            exec(compile(ast.Module([node], []), "kernel", "exec"), values)
    width = 8 if arch.family == "sm90" else 2
    found = values[RESULT[arch.family]]
    return {width * group + i for group in found for i in range(width)}


@pytest.mark.parametrize("arch_name", ["sm90", "sm100"])
def test_columns_are_those_of_the_template(arch_name: str) -> None:
    arch = load_arch(arch_name)
    problem = AttentionProblem.from_dict(
        {"batch": 1, "seqlen_q": 256, "num_heads_q": 1, "head_dim": 64}
    )
    configs = exp2_split_plan(problem, arch).grid.configs
    for config in configs[:: max(1, len(configs) // 40)]:
        mine = polynomial_columns(config, arch)
        assert set(mine) == columns_in_kernel(config, arch), config.to_record()
        assert list(mine) == sorted(set(mine))


def test_the_share_of_the_columns_is_the_fraction() -> None:
    arch = load_arch("sm100")
    for fraction in (0.0, 0.0625, 0.1875, 0.25):
        config = KernelConfig(tile_n=128, exp2_poly_fraction=fraction, exp2_poly_frequency=16)
        assert len(polynomial_columns(config, arch)) == fraction * 128


@pytest.mark.slow
@pytest.mark.parametrize("arch_name", ["sm90", "sm100"])
def test_numpy_computes_what_the_ptx_computes(arch_name: str) -> None:
    """O of the emulated kernel, bit for bit but for ties that the order of sums breaks."""
    from fa4gen.compile import compile_kernel
    from fa4gen.compile.emulation import host_of_artifact
    from fa4gen.core.workspace import Workspace
    from fa4gen.emulator import run
    from fa4gen.evaluate.emulated import kernel_tensors, make_inputs, poisoned_outputs

    arch = load_arch(arch_name)
    problem = AttentionProblem.from_dict(
        {"batch": 1, "seqlen_q": 128, "seqlen_k": 512, "num_heads_q": 1, "head_dim": 64}
    )
    knobs = {"exp2_poly_fraction": 0.25, "exp2_poly_degree": 2, "rescale_threshold_log2": 4.0}
    config = space_for(arch_name).default(problem.signature).vary(knobs)
    config = canonicalise(problem.signature, config, arch)
    assert check(problem.signature, config, arch)
    host = host_of_artifact(compile_kernel(render(problem.signature, config, arch)), arch.target)
    columns = polynomial_columns(config, arch)
    recipe = SoftmaxRecipe(config.tile_n, columns, 2, 4.0, problem.dtype)
    for kind in (Distribution.LARGE, Distribution.GROWING):
        q, k, v = make_inputs(problem, kind, 1)
        out, lse = poisoned_outputs(problem)
        tensors = kernel_tensors((q, k, v), (out, lse), workspace=Workspace.of(config))
        run(host, *tensors, 64**-0.5, 2, policies=("eager",))
        mine = [x[0, :, 0].astype(np.float32) for x in (q, k, v)]
        got = attention_as_kernel(kernel_scores(*mine[:2]), mine[2], recipe, 64**-0.5)
        equal = got.o == out[0, :, 0].astype(np.float32)
        assert equal.mean() > 0.995
        assert np.abs(got.lse - lse[0, 0]).max() < 2e-5
