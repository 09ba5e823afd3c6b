"""What a line through each octave costs an e4m3 kernel in accuracy, computed on the CPU.

    python benchmarks/e4m3_line_error.py [--seqlen 512] [--checks 150]

The default kernel's softmax is done step by step in torch: its tiles, its stale maxima, its columns
with a line and the others exact, P rounded to e4m3, row sums of P before that. Scores and products
are exact, so that what remains is the softmax's own error. Printed are the error of O relative to
its size (root mean squares), and the LSE's, against float64; and how many of so many checks of a
single query, where one key often dominates, the rule of the evaluators refuses. Compared are no
line, the line, and the line moved down so that its mean is right.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import Any

import torch

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.correctness import Distribution, small_cases
from fa4gen.evaluate.gpu_check import Inputs, Kernel, make_inputs, run_case, softmax_scale
from fa4gen.evaluate.gpu_reference import reference
from fa4gen.hardware import load_arch
from fa4gen.numerics import LINE, exp2_line, max_relative_error
from fa4gen.numerics.online_softmax import E4M3_PEAK_LOG2
from fa4gen.space import space_for
from fa4gen.study.columns import polynomial_columns

Exp2 = Callable[[Any], Any]

ARCH = load_arch("sm90")
MEAN_RIGHT = math.log2(1.5 * math.log(2))
"""Octaves by which the line is moved for a sum over an octave to be that of ``2 ** x``."""


def by_line(x: Any) -> Any:
    """:func:`fa4gen.numerics.exp2_line` of a float32 tensor."""
    return torch.from_numpy(exp2_line(x.numpy()))


LINES: dict[str, tuple[float, Exp2]] = {
    "no line": (0.0, torch.exp2),
    "line, half": (0.5, by_line),
    "line, all": (1.0, by_line),
    "moved, half": (0.5, lambda x: by_line(x - MEAN_RIGHT)),
}
"""Share of the columns with it, and what it makes of their exponents."""


def row_blocks(scores: Any, values: Any, config: KernelConfig, line: Exp2) -> tuple[Any, Any, Any]:
    """O not yet divided, row sums and bases of ``scores`` (log2 units), as a kernel has them."""
    threshold = config.rescale_threshold_log2
    shift = E4M3_PEAK_LOG2 - threshold
    columns = torch.tensor(polynomial_columns(config, ARCH) if config.exp2_poly_fraction else ())
    row_max = torch.full(scores.shape[:1], -math.inf)
    row_sum, o = torch.zeros_like(row_max), torch.zeros(len(scores), values.shape[1])
    for first in range((scores.shape[1] - 1) // config.tile_n * config.tile_n, -1, -config.tile_n):
        block = scores[:, first : first + config.tile_n]
        new = torch.maximum(row_max, block.amax(1))
        new = torch.where(new - row_max <= threshold, row_max, new)
        factor = torch.exp2(row_max - new)
        exponent = block - new[:, None] + shift
        p = torch.exp2(exponent)
        lined = columns[columns < p.shape[1]].long()
        p[:, lined] = line(exponent[:, lined])
        row_sum = row_sum * factor + p.sum(1)
        rounded = p.to(torch.float8_e4m3fn).double()
        product = rounded @ values[first : first + config.tile_n].double()
        o, row_max = o * factor[:, None] + product.float(), new
    return o, row_sum, row_max - shift


def kernel(config: KernelConfig, line: Exp2) -> Kernel:
    """A dense kernel as the evaluators call it."""

    def launch(q: Any, k: Any, v: Any, out: Any, lse: Any, *rest: Any) -> None:
        q_descale, k_descale, v_descale, scale = rest
        group = q.shape[2] // k.shape[2]
        for b in range(q.shape[0]):
            for h in range(q.shape[2]):
                kv = h // group
                scores = (q[b, :, h].double() @ k[b, :, kv].double().T).float()
                scores *= float(scale * q_descale[b, kv] * k_descale[b, kv]) * math.log2(math.e)
                o, row_sum, base = row_blocks(scores, v[b, :, kv], config, line)
                out[b, :, h] = (o / row_sum[:, None] * float(v_descale[b, kv])).to(out.dtype)
                lse[b, h] = (base + torch.log2(row_sum)) * math.log(2)

    return launch


def errors(problem: AttentionProblem, launch: Kernel, inputs: Inputs) -> tuple[float, float]:
    """Error of O over the size of O, root mean squares; and mean error of the LSE."""
    scale = softmax_scale(problem)
    shape = (problem.batch, problem.seqlen_q, problem.num_heads_q)
    out, lse = torch.zeros(*shape, problem.head_dim_v), torch.zeros(shape[0], shape[2], shape[1])
    inputs.launch(launch, _Outputs(out, lse), scale)  # type: ignore[arg-type]
    slices = [(b, h) for b in range(problem.batch) for h in range(problem.num_heads_q)]
    wanted = reference(inputs, False, scale, slices)
    o = torch.stack([out[b, :, h] for b, h in slices]).double()
    bias = (torch.stack([lse[b, h] for b, h in slices]).double() - wanted.lse).mean()
    size = wanted.o.square().mean().sqrt()
    return float((o - wanted.o).square().mean().sqrt() / size), float(bias)


class _Outputs:
    """O and LSE that need no guards."""

    def __init__(self, out: Any, lse: Any) -> None:
        self.out, self.lse = out, lse


def refused(problem: AttentionProblem, launch: Kernel, config: KernelConfig, checks: int) -> int:
    """How many of so many single queries with large logits the rule refuses."""
    (case,) = (each for each in small_cases(problem, config) if each.kind == "short")
    error = max_relative_error(LINE) if config.exp2_poly_fraction else 0.0
    found = 0
    for seed in range(checks):
        inputs = make_inputs(case.problem, case.distribution, seed, "cpu", config.tile_n)
        judged = run_case(launch, case, inputs=inputs, launch=_now, exp2_error=error)
        found += bool(judged.message)
    return found


def _now(thunk: Callable[[], object]) -> None:
    """Nothing to wait for on a CPU."""
    thunk()


def main() -> None:
    """Print a table, one line for each head_dim and way of exp2."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seqlen", type=int, default=512)
    parser.add_argument("--checks", type=int, default=150)
    options = parser.parse_args()
    print("| head_dim | exp2 | O, normal | O, large logits | LSE, normal | large | refused |")
    print("|---:|---|---:|---:|---:|---:|---:|")
    for head_dim in (64, 128):
        problem = AttentionProblem.from_dict(
            {
                "batch": 1,
                "seqlen_q": options.seqlen,
                "num_heads_q": 2,
                "head_dim": head_dim,
                "dtype": "e4m3",
            }
        )
        default = space_for("sm90").default(problem.signature)
        for name, (share, line) in LINES.items():
            config = default.vary({"exp2_poly_fraction": share})
            launch = kernel(config, line)
            o, lse = zip(
                *(
                    errors(problem, launch, make_inputs(problem, kind, 1, "cpu", config.tile_n))
                    for kind in (Distribution.NORMAL, Distribution.LARGE)
                ),
                strict=True,
            )
            bad = refused(problem, launch, config, options.checks)
            print(
                f"| {head_dim} | {name} | {o[0]:.2%} | {o[1]:.2%} | {lse[0]:+.4f} | {lse[1]:+.4f} "
                f"| {bad} of {options.checks} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
