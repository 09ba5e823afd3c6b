"""A tuner in its own process: ``tuner_process.py FOLDER [--delay S] [--trials N] [--seed N]``."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from fa4gen.core.problem import AttentionProblem
from fa4gen.db import TuningStore
from fa4gen.hardware import load_sku
from fa4gen.testing.fakes import Behaviour, FakeEvaluator
from fa4gen.tune import QUICK, NullListener, TrialEvent, TuneSettings, tune


class Printing(NullListener):
    """One line a trial, so that the parent knows how far this is."""

    def on_trial(self, event: TrialEvent) -> None:
        """Print the number of evaluations so far."""
        print("trial", event.progress.evaluated, flush=True)


def main() -> None:
    """Tune one problem with studies on disk, and print what came of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--delay", type=float, default=0.0)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    problem = AttentionProblem.from_dict(
        {"batch": 2, "seqlen_q": 2048, "num_heads_q": 16, "head_dim": 128, "causal": True}
    )
    effort = replace(QUICK, max_trials=given.trials, patience=1000, model_seeds=0)
    evaluator = FakeEvaluator(load_sku("h200"), lambda p, c: Behaviour(delay_s=given.delay))
    with TuningStore.open(given.folder / "tuning.sqlite", with_shipped=False) as store:
        settings = TuneSettings(effort=effort, seed=given.seed)
        report = tune(
            [problem], evaluator=evaluator, store=store, settings=settings, listener=Printing()
        )
    (result,) = report.problems
    print(f"interrupted={report.interrupted} evaluated={result.progress.evaluated} ", flush=True)


if __name__ == "__main__":
    main()
