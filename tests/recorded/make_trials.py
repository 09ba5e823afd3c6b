"""Makes a recorded sweep of a tuner's trials, from its databases.

From the root of the repository: ``python tests/recorded/make_trials.py OUT.jsonl.gz TEMPLATE_HASH
STORE.sqlite ...``. Only trials of that template count: what seeded the run is older, and its gains
are over other defaults. ``h200_trials.jsonl.gz`` came from ``fa4gen tune --gpus all --workload
peers --budget 330s``, and ``--workload llama3-8b`` after it, on two H200, 2026-11-21;
``h200_decode.jsonl.gz`` from ``fa4gen tune --workload FILE --budget 65s`` with the decode problems
of ``peers``, and ``--workload llama3-8b --budget 40s`` after it, on one H200, 2026-11-22;
``h200_decode_held.jsonl.gz`` from the former with ``--budget 100s``, later that day;
``h200_qwen.jsonl.gz`` from ``fa4gen tune --workload qwen2.5 --budget 125s`` on one, that day;
``h200_quick_trials.jsonl.gz`` from ``fa4gen tune --gpus all --workload FILE --fresh`` with the grid
of ``peers`` but for head_dim 96, on two H200, 2026-11-22, before the cycle model had a say in what
the sampler asks for.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.evaluation import Evaluation, Timing
from fa4gen.core.outcome import Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.db import StoredEvaluation, TuningStore
from fa4gen.evaluate.replay import write_sweep

LEAST_CONFIGS = 6
"""Of a problem that is kept: fewer have no order to speak of."""
DIGITS = 5
"""Of every number that is kept; a repeated measurement differs in the third or fourth."""


def trials(paths: Iterable[str], template_hash: str) -> list[StoredEvaluation]:
    """Of 16-bit problems, the measurements that succeeded, each once."""
    found: dict[str, StoredEvaluation] = {}
    for path in paths:
        with TuningStore.open(path, read_only=True, with_shipped=False) as store:
            for row in store.evaluations(source=Source.MEASURED, template_hash=template_hash):
                if row.evaluation.timing is not None and row.problem.dtype is not DType.E4M3:
                    found.setdefault(row.uid, row)
    return list(found.values())


def anchor_of(rows: Iterable[StoredEvaluation]) -> str:
    """Id of the configuration that the gains of a problem are relative to.

    Raises:
        SystemExit: there are several.
    """
    anchors = {str(row.evaluation.details["anchor"]) for row in rows}
    if len(anchors) != 1:
        raise SystemExit(f"anchors: got {sorted(anchors)}, allowed: one for each problem")
    return anchors.pop()


def kept(rows: list[StoredEvaluation]) -> Iterator[tuple[KernelConfig, Evaluation]]:
    """Of each configuration the measurement with most samples, the anchor first."""
    anchor = anchor_of(rows)
    best: dict[str, StoredEvaluation] = {}
    for row in sorted(rows, key=lambda row: samples(row.evaluation)):
        best[row.config.config_id] = row
    for config_id in sorted(best, key=lambda each: each != anchor):
        evaluation = best[config_id].evaluation
        timing = rounded(evaluation.timing, config_id == anchor)
        provenance = replace(evaluation.provenance, power_w=None)
        yield (
            best[config_id].config,
            replace(
                evaluation,
                timing=timing,
                provenance=provenance,
                accuracy=None,
                compile_s=None,
                evaluate_s=None,
            ),
        )


def samples(evaluation: Evaluation) -> int:
    """How often it was timed."""
    return evaluation.timing.n if evaluation.timing else 0


def rounded(timing: Timing | None, is_anchor: bool) -> Timing:
    """To :data:`DIGITS`; a gain of exactly 1 is the anchor's alone."""
    assert timing is not None
    names = ("median_us", "spread_us", "gain", "gain_low", "gain_high")
    values = {name: float(f"{getattr(timing, name):.{DIGITS}g}") for name in names}
    if is_anchor:
        values |= {"gain": 1.0, "gain_low": 1.0, "gain_high": 1.0}
    elif values["gain"] == 1.0:
        values["gain"] = 1.0 + 10.0**-DIGITS
    return replace(timing, **values)


def main(out: str, template_hash: str, *paths: str) -> None:
    """Write the file."""
    by_problem: dict[AttentionProblem, list[StoredEvaluation]] = {}
    for row in trials(paths, template_hash):
        by_problem.setdefault(row.problem, []).append(row)
    found = [
        (problem, config, evaluation)
        for problem, rows in by_problem.items()
        if len({row.config.config_id for row in rows}) >= LEAST_CONFIGS
        for config, evaluation in kept(rows)
    ]
    policy = next(row.policy for rows in by_problem.values() for row in rows)
    lines = write_sweep(Path(out), policy, found)
    print(f"{lines} lines of {len({problem for problem, _, _ in found})} problems")


if __name__ == "__main__":
    main(*sys.argv[1:])
