"""Makes ``h200_model_hd64.jsonl.gz``, a full factorial sweep answered by the cycle model.

Run from the root of the repository: ``python tests/recorded/make_sweep.py``. The file is data: it
need not follow the model's later versions, and the tests on it are about search, not speed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate import Evaluator, make_evaluator
from fa4gen.evaluate.replay import write_sweep
from fa4gen.feasibility import canonicalise, check
from fa4gen.hardware import load_sku
from fa4gen.space import space_for

PROBLEM = AttentionProblem.from_dict(
    {"batch": 4, "seqlen_q": 2048, "num_heads_q": 32, "head_dim": 64, "causal": True}
)
GRID = {
    "tile_m": (64, 128, 192),
    "tile_n": (64, 96, 128, 160, 192),
    "num_kv_stages": (2, 3),
    "intra_warpgroup_overlap": (True, False),
    "exp2_poly_fraction": (0.0, 0.125, 0.25, 0.5),
}


def configs(evaluator: Evaluator) -> Iterator[KernelConfig]:
    """Every feasible combination once; the other knobs as in the default."""
    arch, signature = evaluator.sku.arch, PROBLEM.signature
    anchor = space_for(arch.name).default(signature)
    seen = set()
    for values in itertools.product(*GRID.values()):
        changed = replace(anchor, **dict(zip(GRID, values, strict=True)))
        config = canonicalise(signature, changed, arch)
        if config not in seen and check(signature, config, arch):
            seen.add(config)
            yield config


def main() -> None:
    """Write the file beside this script."""
    path = Path(__file__).with_name("h200_model_hd64.jsonl.gz")
    with make_evaluator("model", load_sku("h200")) as evaluator:
        found = [
            (PROBLEM, config, evaluator.evaluate(PROBLEM, config)) for config in configs(evaluator)
        ]
        lines = write_sweep(path, evaluator.policy, found)
    gains = sorted((e.timing.gain for _, _, e in found if e.timing), reverse=True)
    near = sum(gain * 1.05 >= gains[0] for gain in gains)
    print(
        f"{lines} lines, {path.stat().st_size} bytes, {near} within 5 % of the best {gains[0]:.3f}"
    )


if __name__ == "__main__":
    main()
