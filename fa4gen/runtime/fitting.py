"""A row's configuration for another shape than the one it was measured with."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import UnknownName
from fa4gen.core.problem import AttentionProblem
from fa4gen.feasibility import canonicalise, check

if TYPE_CHECKING:
    from fa4gen.hardware import Sku


def fit_splits(
    config: KernelConfig, measured: AttentionProblem, asked: AttentionProblem, sku: Sku
) -> KernelConfig:
    """``config`` with as many splits of the keys as give ``asked`` the CTAs that ``measured`` has.

    Splits fill the SMs where tiles do not, so their number belongs to a batch, not to a kernel:
    taken as they are, those of the nearest other decode row of the H200's table make 7 of 30
    problems 1.18 to 9.4 times slower, fitted ones one by 1.13 (*modelled*; a test holds it).

    A configuration without splits is fitted only where the queries of a head are one tile, in
    both problems: there the SMs run out of tiles. More CTAs than SMs count as SMs, and a split
    has one KV block at least. Unchanged where nothing else can run.

    Args:
        config: of the row.
        measured: the row's problem.
        asked: a problem of the same signature.
        sku: the machine, whose search space says which numbers of splits there are.
    """
    if measured == asked:
        return config
    from fa4gen.perf.work import count_work
    from fa4gen.space import space_for

    row, here = (count_work(each, config, sku.arch) for each in (measured, asked))
    row_tiles, tiles = (work.num_tiles // config.num_splits for work in (row, here))
    one_tile = len(row.blocks_per_tile) == len(here.blocks_per_tile) == 1
    if row_tiles == tiles or not (one_tile or config.num_splits > 1):
        return config
    try:
        knob = space_for(sku.arch.name).knob("num_splits")
    except UnknownName:
        return config
    wanted = max(1.0, min(row.num_tiles, sku.sm_count) / tiles)
    num_blocks = -(-asked.seqlen_k // config.tile_n)
    choices = [int(value) for value in knob.values if int(value) <= num_blocks]
    for splits in sorted(choices, key=lambda value: abs(math.log2(value / wanted))):
        fitted = canonicalise(asked.signature, config.vary({"num_splits": splits}), sku.arch)
        if fitted.num_splits == splits and check(asked.signature, fitted, sku.arch):
            return fitted
    return config
