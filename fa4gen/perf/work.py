"""How much work a problem is once it is cut into query tiles and KV blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem


@dataclass(frozen=True, slots=True)
class Work:
    """The query tiles of a kernel launch, longest first."""

    num_groups: int
    """Batch entries times heads (KV heads when packed); each has the same tiles."""
    blocks_per_tile: tuple[int, ...]
    """KV blocks of each query tile of one group, in descending order; 0 where all is masked."""
    masked_blocks_per_tile: float
    """KV blocks of a tile that need the mask: the diagonal, or a ragged end."""

    @property
    def num_tiles(self) -> int:
        """Query tiles of the launch."""
        return self.num_groups * len(self.blocks_per_tile)

    @property
    def num_blocks(self) -> int:
        """KV blocks of the launch."""
        return self.num_groups * sum(self.blocks_per_tile)

    def strided_blocks(self, stride: int) -> tuple[int, int]:
        """Tiles and KV blocks of the CTA that takes every ``stride``-th tile, from the first.

        It is the CTA with most work, since tiles come longest first, all groups of one length
        before the next.
        """
        taken = range(0, self.num_tiles, stride)
        blocks = sum(self.blocks_per_tile[tile // self.num_groups] for tile in taken)
        return len(taken), blocks


def count_work(problem: AttentionProblem, config: KernelConfig) -> Work:
    """The tiles and blocks of ``problem`` under ``config``."""
    group = problem.qhead_per_kvhead if config.pack_gqa else 1
    heads = problem.num_heads_q // group
    return _count(
        problem.batch * heads,
        (problem.seqlen_q, problem.seqlen_k, problem.causal),
        group,
        (config.tile_m, config.tile_n),
    )


@lru_cache(maxsize=4096)
def _count(
    num_groups: int, shape: tuple[int, int, bool], rows_per_query: int, tile: tuple[int, int]
) -> Work:
    seqlen_q, seqlen_k, causal = shape
    tile_m, tile_n = tile
    num_tiles = -(-seqlen_q * rows_per_query // tile_m)
    ragged = 1.0 if seqlen_k % tile_n else 0.0
    if not causal:
        blocks = (-(-seqlen_k // tile_n),) * num_tiles
        return Work(num_groups, blocks, ragged)
    lengths = []
    for tile_index in range(num_tiles):
        last_query = min(seqlen_q, -(-(tile_index + 1) * tile_m // rows_per_query))
        visible = max(0, min(seqlen_k, last_query + seqlen_k - seqlen_q))
        lengths.append(-(-visible // tile_n))
    # The diagonal crosses the keys that the rows of one tile span, plus a block for alignment.
    diagonal = -(-tile_m // rows_per_query) / tile_n + 1.0
    return Work(num_groups, tuple(sorted(lengths, reverse=True)), min(diagonal, max(lengths)))
