"""What an H200 measured of our own kernels, and how far the model is from it.

``measured_h200.jsonl`` holds one problem a line: its default configuration of that day
(``base``), that one's time, and runs of ``[changes to base, gain over base, spilled bytes]``, where
a gain is the geometric mean over repeats. From the root of the repository::

    python tests/perf/measured_h200.py make SWEEP.jsonl STORE.sqlite   # writes the file
    python tests/perf/measured_h200.py                                 # prints the tables

SWEEP comes from ``benchmarks/record_sweep.py``, STORE from ``fa4gen tune``.
"""

from __future__ import annotations

import json
import math
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.evaluation import Evaluation
from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.feasibility import check
from fa4gen.hardware import load_sku
from fa4gen.perf import predict

FILE = Path(__file__).with_suffix(".jsonl")
H200 = load_sku("h200")
FEWEST = 8
"""Runs of a problem from which on a ranking of them says something."""


@dataclass(frozen=True)
class Run:
    """One configuration of one problem."""

    config: KernelConfig
    gain: float
    spill_bytes: int


@dataclass(frozen=True)
class Measured:
    """One problem, its default's time and its runs, the default among them."""

    problem: AttentionProblem
    base: KernelConfig
    base_us: float
    runs: tuple[Run, ...]

    @property
    def held_out(self) -> bool:
        """Whether the constants were found without it: alternating over lengths, dims and masks."""
        steps = self.problem.seqlen_q.bit_length() // 2 + self.problem.head_dim.bit_length()
        return (steps + self.problem.causal) % 2 == 1

    @property
    def comparable(self) -> tuple[Run, ...]:
        """Runs the model is asked about.

        Not those that feasibility refuses; nor persistent ones under a mask, since the kernel of
        that day gave its CTAs very unequal shares of the tiles, and today's pairs them.
        """
        return tuple(
            run
            for run in self.runs
            if check(self.problem.signature, run.config, H200.arch)
            and not (self.problem.causal and run.config.scheduler is Scheduler.PERSISTENT)
        )

    def expected_us(self, config: KernelConfig) -> float:
        """Of the kernel of those days, whose warpgroups ran all blocks of their tile."""
        return predict(self.problem, config, H200, skips_blocks=False).time_us

    @property
    def ratio(self) -> float:
        """Predicted over measured time of the default."""
        return self.expected_us(self.base) / self.base_us

    @property
    def pick(self) -> Run:
        """The comparable run the model expects to be fastest."""
        return min(self.comparable, key=lambda run: self.expected_us(run.config))

    @property
    def regret(self) -> float:
        """How much slower the pick is than the best comparable run."""
        return max(run.gain for run in self.comparable) / self.pick.gain - 1.0

    @property
    def spearman(self) -> float:
        """Rank correlation of expected and measured speed."""
        expected = [-self.expected_us(run.config) for run in self.comparable]
        return statistics.correlation(_ranks(expected), _ranks([r.gain for r in self.comparable]))


def _ranks(values: list[float]) -> list[float]:
    """The rank of each value; equal ones share the mean of their ranks."""
    ordered = sorted(values)
    return [ordered.index(value) + (ordered.count(value) - 1) / 2 for value in values]


def read() -> list[Measured]:
    """All problems of the file."""
    found = []
    for line in FILE.read_text().splitlines():
        data = json.loads(line)
        base = KernelConfig.from_dict(data["base"])
        runs = [Run(replace(base, **changes), *rest) for changes, *rest in data["runs"]]
        problem = AttentionProblem.from_dict(data["problem"])
        found.append(Measured(problem, base, data["base_us"], tuple(runs)))
    return found


def rms_log(ratios: Iterable[float]) -> float:
    """Root mean square of the logarithms: 0.12 is 12 %."""
    return math.sqrt(statistics.fmean(math.log(ratio) ** 2 for ratio in ratios))


def geometric_mean_regret(problems: Iterable[Measured]) -> float:
    """Of the problems' regrets."""
    return statistics.geometric_mean([1.0 + each.regret for each in problems]) - 1.0


def make(sweep_path: str, store_path: str) -> None:
    """Write the file from a recorded sweep and a tuning store."""
    from fa4gen.db import TuningStore
    from fa4gen.evaluate.replay import read_sweep
    from fa4gen.tune import load_workload

    sweep = read_sweep(sweep_path)
    found: dict[AttentionProblem, dict[KernelConfig, list[Evaluation]]] = {}
    by_id = {problem.problem_id: problem for problem in sweep.problems}
    for (problem_id, config_id), evaluation in sweep.results.items():
        runs = found.setdefault(by_id[problem_id], {})
        runs.setdefault(sweep.configs[config_id], []).append(evaluation)
    with TuningStore.open(store_path, read_only=True) as store:
        for problem in load_workload("peers").problems:
            for row in store.evaluations(
                problem, sku="h200", source=Source.MEASURED, policy=sweep.policy
            ):
                found.setdefault(problem, {}).setdefault(row.config, []).append(row.evaluation)
    lines = [json.dumps(_line(p, runs), separators=(",", ":")) for p, runs in found.items()]
    FILE.write_text("".join(line + "\n" for line in lines))


def _line(problem: AttentionProblem, found: dict[KernelConfig, list[Evaluation]]) -> dict[str, Any]:
    times = {config: [e.timing for e in each if e.timing] for config, each in found.items()}
    times = {config: each for config, each in times.items() if each}
    base = next(c for c, each in times.items() if all(t.gain == 1.0 for t in each))
    base_us = statistics.median(t.median_us * t.gain for each in times.values() for t in each)
    runs = []
    for config, each in times.items():
        gain = statistics.geometric_mean([t.gain for t in each])
        spilled = max(e.resources.spill_bytes for e in found[config] if e.resources)
        changes = {name: mine for name, (mine, _) in config.differences(base).items()}
        runs.append([changes, round(gain, 4), spilled])
    return {
        "problem": problem.to_dict(),
        "base": base.to_dict(),
        "base_us": round(base_us, 2),
        "runs": runs,
    }


def main() -> None:
    """Print the tables of docs/model-calibration.md."""
    for held_out in (False, True):
        print(f"\n{'Held out' if held_out else 'Fitted'}\n")
        print("| problem | measured us | predicted us | ratio | runs | regret | rank corr. |")
        print("|---|---:|---:|---:|---:|---:|---:|")
        part = [each for each in read() if each.held_out is held_out]
        ranked = [each for each in part if len(each.comparable) >= FEWEST]
        for m in part:
            line = f"| {m.problem} | {m.base_us:.1f} | {m.base_us * m.ratio:.1f} | {m.ratio:.3f} |"
            if m in ranked:
                line += f" {len(m.comparable)} | {m.regret:.1%} | {m.spearman:.2f} |"
            print(line if m in ranked else f"{line} | | |")
        worst = max((each.ratio for each in part), key=lambda ratio: abs(math.log(ratio)))
        regret = geometric_mean_regret(ranked)
        print(f"\nratio: rms {rms_log(e.ratio for e in part):.1%}, worst {worst:.3f}; ", end="")
        print(f"regret: mean {regret:.2%}, worst {max(e.regret for e in ranked):.1%}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(*sys.argv[2:])
    else:
        main()
