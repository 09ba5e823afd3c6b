"""Analytic cycle model: expected kernel time on any machine, with no GPU at hand."""

from fa4gen.perf.block import block_cost
from fa4gen.perf.cost import BlockCost, spill_slowdown
from fa4gen.perf.predict import MODEL_VERSION, Prediction, predict
from fa4gen.perf.shortlist import Ranked, rank, shortlist
from fa4gen.perf.work import Work, count_work

__all__ = [
    "MODEL_VERSION",
    "BlockCost",
    "Prediction",
    "Ranked",
    "Work",
    "block_cost",
    "count_work",
    "predict",
    "rank",
    "shortlist",
    "spill_slowdown",
]
