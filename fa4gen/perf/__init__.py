"""Cycle models: expected kernel time on any machine, with no GPU at hand.

Rooflines and the analytic model are here; :mod:`fa4gen.perf.trace` replays what a kernel executes.
"""

from fa4gen.perf.block import block_cost
from fa4gen.perf.cost import BlockCost, spill_slowdown
from fa4gen.perf.predict import MODEL_VERSION, Prediction, predict
from fa4gen.perf.roofline import BackwardTraffic, Roofline, backward_roofline, forward_roofline
from fa4gen.perf.shortlist import Ranked, rank, shortlist
from fa4gen.perf.work import Work, count_work

__all__ = [
    "MODEL_VERSION",
    "BackwardTraffic",
    "BlockCost",
    "Prediction",
    "Ranked",
    "Roofline",
    "Work",
    "backward_roofline",
    "block_cost",
    "count_work",
    "forward_roofline",
    "predict",
    "rank",
    "shortlist",
    "spill_slowdown",
]
