"""Measure many configurations of a few problems and write them as a recorded sweep.

    python benchmarks/record_sweep.py --out sweep.jsonl --workload FILE --configs 40 --seconds 300

A recorded sweep answers for the GPU in `fa4gen replay` and in tests, and is what the cycle model is
calibrated with. Configurations are the default's neighbours first, then random ones, so that every
knob is seen alone before it is seen in company.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate import make_evaluator
from fa4gen.evaluate.replay import write_sweep
from fa4gen.feasibility import canonicalise, check
from fa4gen.hardware import Sku, load_sku
from fa4gen.space import space_for
from fa4gen.tune import load_workload


def candidates(problem: AttentionProblem, sku: Sku, seed: int) -> Iterator[KernelConfig]:
    """The default, its feasible neighbours in random order, then neighbours of neighbours."""
    space, signature, arch = space_for(sku.arch.name), problem.signature, sku.arch
    rng = random.Random(f"{seed}/{problem.problem_id}")
    default = space.default(signature)
    yield default
    seen = {default.config_id}
    near = list(space.neighbours(default))
    rng.shuffle(near)
    far = (space.sample(rng, signature, arch) for _ in itertools.count())
    mixed = (rng.choice(list(space.neighbours(rng.choice(near)))) for _ in itertools.count())
    alternating = (next(mixed) if i % 3 else next(far) for i in itertools.count())
    for proposed in itertools.chain(near, alternating):
        config = canonicalise(signature, proposed, arch)
        if config.config_id not in seen and check(signature, config, arch):
            seen.add(config.config_id)
            yield config


def main() -> int:
    """Measure until the time is up; what was measured is written in any case."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="sweep to write, JSON Lines")
    parser.add_argument("--workload", required=True, help="TOML file or name")
    parser.add_argument("--sku", default="h200")
    parser.add_argument("--configs", type=int, default=40, help="configurations of each problem")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    sku = load_sku(options.sku)
    problems = load_workload(options.workload).problems
    chosen = {
        problem: list(itertools.islice(candidates(problem, sku, options.seed), options.configs))
        for problem in problems
    }
    until = time.monotonic() + options.seconds
    done = []
    with make_evaluator("gpu", sku) as evaluator:
        for problem, configs in chosen.items():
            evaluator.prepare(problem, configs)
        share = options.seconds / len(problems)
        for index, (problem, configs) in enumerate(chosen.items()):
            stop = until - share * (len(problems) - 1 - index)
            for config in configs:
                if time.monotonic() > stop:
                    break
                done.append((problem, config, evaluator.evaluate(problem, config)))
            ok = [e.timing.gain for p, _, e in done if p == problem and e.timing is not None]
            print(f"{problem}: {len(ok)} timed, best gain {max(ok, default=0):.3f}", flush=True)
        write_sweep(options.out, evaluator.policy, done)
    return 0


if __name__ == "__main__":
    sys.exit(main())
