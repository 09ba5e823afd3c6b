"""Rendered kernels against reviewed texts; ``pytest --accept`` rewrites them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fa4gen.codegen import load_manifest, render, templates_dir
from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import KernelSignature
from fa4gen.feasibility import check
from fa4gen.hardware import load_arch
from fa4gen.numerics import LINE, line_bias
from fa4gen.space import space_for

GOLDEN = Path(__file__).parent.parent / "golden"
PLAIN = KernelSignature(DType.BF16, 128, 128, causal=True, qhead_per_kvhead=1)
DENSE = KernelSignature(DType.BF16, 128, 128, causal=False, qhead_per_kvhead=1)
GROUPED = KernelSignature(DType.FP16, 80, 64, causal=False, qhead_per_kvhead=4)
NARROW = KernelSignature(DType.E4M3, 128, 128, causal=True, qhead_per_kvhead=1)
EVERYTHING = KernelConfig(
    tile_n=96,
    num_kv_stages=3,
    p_in_registers=False,
    regs_producer=40,
    regs_consumer=232,
    scheduler=Scheduler.PERSISTENT,
    exp2_poly_fraction=0.25,
    exp2_poly_degree=4,
    rescale_threshold_log2=8.0,
    lazy_row_max=True,
    q_prefetch=True,
    pack_gqa=True,
)
CASES = {
    "sm90_fwd_plain": ("sm90", PLAIN, KernelConfig()),
    "sm90_fwd_everything": ("sm90", GROUPED, EVERYTHING),
    "sm90_fwd_e4m3": ("sm90", NARROW, space_for("sm90").default(NARROW)),
    "sm100_fwd_dense": ("sm100", DENSE, space_for("sm100").default(DENSE)),
}


def without_provenance(text: str) -> str:
    """The text without the line that names versions and hashes."""
    return "".join(line for line in text.splitlines(True) if not line.startswith("fa4gen "))


@pytest.mark.parametrize("name", CASES)
def test_kernel_is_as_reviewed(name: str, request: pytest.FixtureRequest) -> None:
    arch_name, signature, config = CASES[name]
    arch = load_arch(arch_name)
    assert check(signature, config, arch)
    text = without_provenance(render(signature, config, arch).source)
    path = GOLDEN / f"{name}.py.txt"
    if request.config.getoption("--accept"):
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8"), "look at the change; --accept takes it"


@pytest.mark.parametrize("name", CASES)
def test_kernel_opens_with_its_knobs_and_has_short_functions(name: str) -> None:
    arch_name, signature, config = CASES[name]
    tree = ast.parse(render(signature, config, load_arch(arch_name)).source)
    names = [
        target.id
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    ]
    assert names[0] == "TILE_M"
    knobs = load_manifest(arch_name, "fwd", templates_dir()).knobs
    assert set(map(str.upper, knobs)) <= set(names)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            length = (node.end_lineno or 0) - node.lineno
            assert length < 150, node.name
            assert ast.get_docstring(node) or node.name == "tensor", node.name


@pytest.mark.parametrize(("name", "start"), [("sm90_fwd_e4m3", -112.0), ("sm100_fwd_dense", 0.0)])
def test_the_line_through_each_octave_has_its_bias(name: str, start: float) -> None:
    """The arithmetic of a rendered file, which needs no fa4gen, is that of the numerics."""
    arch_name, signature, config = CASES[name]
    config = config.vary({"exp2_poly_fraction": 0.5, "exp2_poly_degree": LINE})
    source = render(signature, config, load_arch(arch_name)).source
    lines = [line for line in source.splitlines() if line.startswith("LINE_")]
    values: dict[str, float] = {}
    exec("\n".join(lines), {}, values)
    assert values["LINE_BIAS"] % 2**32 == line_bias(start)
    assert values.get("LINE_START", 0.0) == start
    assert "EXP2_COEFFICIENTS" not in source
