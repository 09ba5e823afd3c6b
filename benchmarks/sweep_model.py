"""The cycle models beside a measured sweep that neither was fitted on.

    python benchmarks/sweep_model.py [--sweep FILE] [--traced N]

For each problem: how well the order of its configurations is predicted, how far off their times
are, and what the five that a model likes best lose against the best measured one. With ``--traced``
also N configurations of each problem, compiled and replayed (ten seconds each) at the SM clock that
was recorded beside each measurement.
"""

from __future__ import annotations

import argparse
import math
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from scipy.stats import spearmanr
from traced_kernels import Ours
from traced_kernels import traced as recorded_kernel

from fa4gen.core.config import KernelConfig
from fa4gen.core.evaluation import Evaluation
from fa4gen.core.problem import AttentionProblem
from fa4gen.evaluate.replay import read_sweep
from fa4gen.hardware import Sku, load_sku
from fa4gen.perf import predict
from fa4gen.perf.trace import load_timing, predict_traced, time_tile

SWEEP = Path(__file__).resolve().parents[1] / "tests" / "recorded" / "h200_sweep.jsonl.gz"
BEFORE_SKIPPING = frozenset({"9b841182e15a2a4d", "d040638f4556ef49"})
"""Hashes of recorded templates whose warpgroups ran all KV blocks of their tile."""
BEST = 5
LEAST_PAIRS = 5


@dataclass(frozen=True)
class Pair:
    """One configuration on one problem."""

    config: KernelConfig
    measured_us: float
    """The default's time over the paired gain, so that the card's temperature cancels out."""
    predicted_us: float
    """At the clock that the model expects."""
    own_us: float
    """As measured, at ``clock_mhz``."""
    own_predicted_us: float
    """At ``clock_mhz``."""
    clock_mhz: float


@dataclass(frozen=True)
class Score:
    """A model on one problem."""

    problem: AttentionProblem
    pairs: int
    rank_correlation: float
    median_error: float
    own_error: float
    """Median too, of the times as measured, at the SM clocks recorded beside them."""
    regret: float
    """Of the best measured among the five that the model likes best."""


def skips_blocks(evaluation: Evaluation) -> bool:
    """Whether the kernel that was measured let blocks pass, as today's do."""
    return evaluation.provenance.template_hash not in BEFORE_SKIPPING


def pairs_of(sweep: Path, sku: Sku) -> dict[AttentionProblem, list[Pair]]:
    """What was measured, with the analytic model's times."""
    found: dict[AttentionProblem, list[Pair]] = {}
    recorded = read_sweep(sweep)
    for problem in recorded.problems:
        timed = [
            (config, evaluation, evaluation.timing)
            for config in recorded.configs.values()
            if (evaluation := recorded.get(problem, config)) is not None
            and evaluation.timing is not None
        ]
        (base_us,) = (timing.median_us for _, _, timing in timed if timing.gain == 1.0)
        pairs = [
            _pair(problem, config, evaluation, base_us / timing.gain, sku)
            for config, evaluation, timing in timed
        ]
        if len(pairs) >= LEAST_PAIRS:
            found[problem] = pairs
    return found


def _pair(
    problem: AttentionProblem,
    config: KernelConfig,
    evaluation: Evaluation,
    measured_us: float,
    sku: Sku,
) -> Pair:
    clock = float(evaluation.provenance.sm_clock_mhz or 0)
    skips = skips_blocks(evaluation)
    predicted, own = (
        predict(problem, config, sku, at, skips_blocks=skips).time_us for at in (None, clock)
    )
    own_us = evaluation.timing.median_us if evaluation.timing else math.nan
    return Pair(config, measured_us, predicted, own_us, own, clock)


def score(problem: AttentionProblem, pairs: Sequence[Pair]) -> Score:
    """How good a model is on one problem."""
    measured, predicted = [p.measured_us for p in pairs], [p.predicted_us for p in pairs]
    errors = [abs(p.predicted_us / p.measured_us - 1.0) for p in pairs]
    liked = sorted(pairs, key=lambda p: p.predicted_us)[:BEST]
    regret = min(p.measured_us for p in liked) / min(measured) - 1.0
    correlation = float(spearmanr(measured, predicted)[0])
    own = [abs(p.own_predicted_us / p.own_us - 1.0) for p in pairs]
    medians = statistics.median(errors), statistics.median(own)
    return Score(problem, len(pairs), correlation, *medians, regret)


def scores(sweep: Path = SWEEP, sku: str = "h200") -> list[Score]:
    """Of every problem with enough pairs."""
    return [score(problem, pairs) for problem, pairs in pairs_of(sweep, load_sku(sku)).items()]


def traced(sweep: Path, sku: Sku, count: int, seed: int = 0) -> Iterator[tuple[Pair, str]]:
    """``count`` random pairs of each problem, with the times of replays, and a line about each."""
    for problem, pairs in pairs_of(sweep, sku).items():
        rng = random.Random(f"{seed}/{problem.problem_id}")
        for pair in rng.sample(pairs, count):
            tapes = recorded_kernel(Ours(problem.signature, pair.config, sku.arch.name)).sass
            tile = time_tile(tapes, load_timing(sku.arch))
            time_us = predict_traced(problem, pair.config, sku, tile, pair.clock_mhz).time_us
            line = (
                f"| {problem} | {pair.config.tile_m}x{pair.config.tile_n} "
                f"{pair.config.scheduler.value} | {pair.own_us:.0f} | {pair.clock_mhz:.0f} | "
                f"{time_us:.0f} | {time_us / pair.own_us - 1:+.1%} | {tile.block:.0f} |"
            )
            yield replace(pair, own_predicted_us=time_us), line


def main() -> int:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--sweep", type=Path, default=SWEEP)
    parser.add_argument("--sku", default="h200")
    parser.add_argument("--traced", type=int, default=0, metavar="N")
    options = parser.parse_args()
    print("| problem | pairs | rank corr. | median error | at its clock | best five lose |")
    print("|---|---:|---:|---:|---:|---:|")
    found = scores(options.sweep, options.sku)
    for each in found:
        print(
            f"| {each.problem} | {each.pairs} | {each.rank_correlation:.3f} | "
            f"{each.median_error:.1%} | {each.own_error:.1%} | {each.regret:.1%} |"
        )
    if options.traced:
        print("\n| problem | kernel | measured us | MHz | traced us | error | cycles a block |")
        print("|---|---|---:|---:|---:|---:|---:|")
        errors = []
        for pair, line in traced(options.sweep, load_sku(options.sku), options.traced):
            errors.append(abs(pair.own_predicted_us / pair.own_us - 1.0))
            print(line, flush=True)
        print(f"\nError of {len(errors)}: median {statistics.median(errors):.1%}, ", end="")
        print(f"largest {max(errors):.1%}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
