"""How much work a problem is once it is cut into query tiles and KV blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean

import numpy as np
import numpy.typing as npt

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.feasibility import l2_section_bytes, rows_per_cta, rows_per_query
from fa4gen.feasibility.sm90_footprint import ROWS_PER_WARPGROUP
from fa4gen.hardware import Arch
from fa4gen.perf import calibration as cal

SKIPPING_FAMILIES = frozenset({"sm90"})
"""Families of archs in whose kernels a warpgroup lets KV blocks pass of which its rows see no key.

Source: ``own_blocks`` and ``skip_block`` of templates/sm90/fwd.py.j2, since 2026-11-21; every
warpgroup of older ones, and of templates/sm100, runs each block of its tile.
"""


@dataclass(frozen=True, slots=True)
class Work:
    """The query tiles of a kernel launch, longest first: of a CTA, or of a cluster of two.

    Tuples with an entry for each tile have the order in which the kernel hands tiles out.
    """

    num_groups: int
    """Batch entries times heads (KV heads when packed); each has the same tiles."""
    blocks_per_tile: tuple[float, ...]
    """How many KV blocks each query tile of one group takes the time of: those that its warpgroups
    run, and :data:`~fa4gen.perf.calibration.SKIPPED_SHARE` of what they let pass."""
    run_per_tile: tuple[float, ...]
    """KV blocks that a warpgroup of the tile runs, mean over its warpgroups; 1 where all is masked.
    Tensor cores, MUFU and issue slots are shared, so the mean says how long they are busy."""
    loaded_per_tile: tuple[int, ...]
    """KV blocks that the producer loads for the tile, whoever runs them."""
    masked_blocks_per_tile: float
    """KV blocks of a tile that need the mask, mean over tiles and warpgroups: the diagonal, or a
    ragged end."""

    blocks_per_pair: tuple[float, ...]
    """Sums of :attr:`blocks_per_tile` of a long and a short query tile of a group, which a
    persistent CTA takes together where lengths differ, i.e. under a mask; empty without one."""
    section: int
    """Groups whose tiles run side by side, since their K and V fit in the L2 together."""
    filled_rows: float
    """Share of queries in the rows of all blocks that run; the rest is padding."""

    @property
    def num_tiles(self) -> int:
        """Query tiles of the launch."""
        return self.num_groups * len(self.blocks_per_tile)

    @property
    def num_blocks(self) -> float:
        """KV blocks that the launch takes the time of."""
        return self.num_groups * sum(self.blocks_per_tile)

    @property
    def num_run(self) -> float:
        """KV blocks of the launch that whole tiles would run in as much work."""
        return self.num_groups * sum(self.run_per_tile)

    @property
    def num_loaded(self) -> int:
        """KV blocks that the launch loads."""
        return self.num_groups * sum(self.loaded_per_tile)

    @property
    def num_pairs(self) -> int:
        """Pairs of tiles of the launch."""
        return self.num_groups * len(self.blocks_per_pair)

    def blocks_of_pairs(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """KV blocks of pairs, as in :attr:`blocks_per_pair`, by their places in the launch.

        Sections come one after the other, in each all groups side by side: the order of ``locate``
        in the templates.
        """
        index, rest = np.divmod(places, self.section * len(self.blocks_per_pair))
        groups = np.minimum(self.section, self.num_groups - index * self.section)
        blocks: npt.NDArray[np.float64] = np.take(self.blocks_per_pair, rest // groups)
        return blocks

    def heaviest_walk(self, num_ctas: int) -> tuple[int, float]:
        """Tiles and KV blocks of the persistent CTA with most blocks, of causal work.

        CTA ``i`` of ``n`` takes the pairs ``i``, ``i + n``, ...
        """
        return _heaviest_walk(self, num_ctas)


@lru_cache(maxsize=1024)
def _heaviest_walk(work: Work, num_ctas: int) -> tuple[int, float]:
    # All of them: 132 CTAs and 11 pairs a head, say, give every eleventh CTA the same pairs.
    places = np.arange(work.num_pairs)
    blocks = np.bincount(places % num_ctas, weights=work.blocks_of_pairs(places))
    heaviest = int(blocks.argmax())
    return 2 * len(range(heaviest, work.num_pairs, num_ctas)), float(blocks[heaviest])


@dataclass(frozen=True, slots=True)
class _Tile:
    """What the warpgroups of one query tile do; a kernel that does not skip counts as one."""

    loaded: int
    run: tuple[int, ...]
    masked: tuple[int, ...]
    queries: tuple[int, ...]
    """Rows of each warpgroup that are queries."""


def count_work(
    problem: AttentionProblem,
    config: KernelConfig,
    arch: Arch,
    *,
    skips_blocks: bool | None = None,
) -> Work:
    """The tiles and blocks of ``problem`` under ``config``.

    Args:
        problem: what is asked.
        config: its tiles and their order.
        arch: whose kernel.
        skips_blocks: whether a warpgroup of 64 rows passes by KV blocks of which none of its rows
            sees a key, and masks only those that its own diagonal crosses. By default as the
            templates of today do, see :data:`SKIPPING_FAMILIES`; False for what was measured
            before, or of others' kernels.
    """
    group = problem.qhead_per_kvhead if config.pack_gqa else 1
    heads, rows = problem.num_heads_q // group, rows_per_query(problem.signature, config)
    dims = problem.head_dim + problem.head_dim_v
    head_bytes = problem.seqlen_k * dims * problem.dtype.itemsize
    section = max(l2_section_bytes(config, arch) // head_bytes, 1) * (
        problem.qhead_per_kvhead // group
    )
    tile_m = rows_per_cta(config, arch) * config.cta_group
    skips = arch.family in SKIPPING_FAMILIES if skips_blocks is None else skips_blocks
    return _count(
        (problem.batch * heads, section),
        (problem.seqlen_q, problem.seqlen_k, problem.causal),
        rows,
        (tile_m, config.tile_n, ROWS_PER_WARPGROUP if skips else tile_m),
        config.num_splits,
    )


@lru_cache(maxsize=4096)
def _count(
    groups: tuple[int, int],
    shape: tuple[int, int, bool],
    rows_per_query: int,
    tile: tuple[int, int, int],
    num_splits: int,
) -> Work:
    seqlen_q, causal = shape[0], shape[2]
    tile_m, _, rows = tile
    num_tiles = -(-seqlen_q * rows_per_query // tile_m)
    # The last query block sees most keys, and goes first.
    tiles = [_tile(index, shape, rows_per_query, tile) for index in reversed(range(num_tiles))]
    # Shares of split keys differ by a block at most: all count as the largest.
    loaded = tuple(-(-each.loaded // num_splits) for each in tiles)
    run = tuple(fmean(-(-blocks // num_splits) for blocks in each.run) for each in tiles)
    time = tuple(
        mine + cal.SKIPPED_SHARE * (all_ - mine) for mine, all_ in zip(run, loaded, strict=True)
    )
    masked = fmean(fmean(each.masked) for each in tiles) / num_splits
    parts = [pair for each in tiles for pair in zip(each.run, each.queries, strict=True)]
    filled = sum(blocks * queries for blocks, queries in parts)
    filled_rows = filled / (rows * sum(blocks for blocks, _ in parts))
    pairs: tuple[float, ...] = ()
    if causal:
        whole = (1.0, *time) if num_tiles % 2 else time  # the tile past the end is masked
        pairs = tuple(whole[-1 - i] + whole[i] for i in range(len(whole) // 2))
    return Work(
        num_groups=groups[0] * num_splits,
        blocks_per_tile=time,
        run_per_tile=run,
        loaded_per_tile=loaded,
        masked_blocks_per_tile=masked,
        blocks_per_pair=pairs,
        section=min(groups) * num_splits,
        filled_rows=filled_rows,
    )


def _tile(
    index: int, shape: tuple[int, int, bool], rows_per_query: int, tile: tuple[int, int, int]
) -> _Tile:
    """Query tile ``index`` of a head, in parts of ``rows`` rows: ``tile_m, tile_n, rows = tile``.

    The arithmetic of ``locate`` and ``own_blocks`` in templates/sm90/fwd.py.j2.
    """
    seqlen_q, seqlen_k, causal = shape
    tile_m, tile_n, rows = tile

    def seen(row: int) -> int:
        """Keys that a packed row sees, beyond the end of Q as if it went on."""
        query = row // rows_per_query
        return max(0, min(seqlen_k, query + 1 + seqlen_k - seqlen_q)) if causal else seqlen_k

    begin, end = index * tile_m, (index + 1) * tile_m
    loaded = max(1, -(-seen(end - 1) // tile_n))
    least = 1 if causal else 0  # a causal walk begins with a masked block in any case
    run, masked, queries = [], [], []
    for row in range(begin, end, rows):
        past = row // rows_per_query >= seqlen_q
        mine = 1 if past else max(1, min(loaded, -(-seen(row + rows - 1) // tile_n)))
        run.append(mine)
        masked.append(max(least, mine - seen(row) // tile_n))
        queries.append(max(0, min(rows, seqlen_q * rows_per_query - row)))
    return _Tile(loaded, tuple(run), tuple(masked), tuple(queries))
