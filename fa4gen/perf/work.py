"""How much work a problem is once it is cut into query tiles and KV blocks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import AttentionProblem
from fa4gen.feasibility import l2_section_bytes, rows_per_cta
from fa4gen.hardware import Arch


@dataclass(frozen=True, slots=True)
class Work:
    """The query tiles of a kernel launch, longest first: of a CTA, or of a cluster of two."""

    num_groups: int
    """Batch entries times heads (KV heads when packed); each has the same tiles."""
    blocks_per_tile: tuple[int, ...]
    """KV blocks of each query tile of one group, in descending order; 1 where all is masked."""
    masked_blocks_per_tile: float
    """KV blocks of a tile that need the mask: the diagonal, or a ragged end."""

    blocks_per_pair: tuple[int, ...]
    """KV blocks of a long and a short query tile of a group, which a persistent CTA takes together
    where lengths differ, i.e. under a mask; empty without one."""
    section: int
    """Groups whose tiles run side by side, since their K and V fit in the L2 together."""
    filled_rows: float
    """Share of the rows of all tiles that are queries; the rest is padding."""

    @property
    def num_tiles(self) -> int:
        """Query tiles of the launch."""
        return self.num_groups * len(self.blocks_per_tile)

    @property
    def num_blocks(self) -> int:
        """KV blocks of the launch."""
        return self.num_groups * sum(self.blocks_per_tile)

    @property
    def num_pairs(self) -> int:
        """Pairs of tiles of the launch."""
        return self.num_groups * len(self.blocks_per_pair)

    def blocks_of_pair(self, place: int) -> int:
        """KV blocks of a pair; sections come one after the other, in each all groups side by side.

        The order of ``locate`` in the templates.
        """
        index, rest = divmod(place, self.section * len(self.blocks_per_pair))
        groups = min(self.section, self.num_groups - index * self.section)
        return self.blocks_per_pair[rest // groups]

    def heaviest_walk(self, num_ctas: int) -> tuple[int, int]:
        """Tiles and KV blocks of the persistent CTA with most blocks, of causal work.

        CTA ``i`` of ``n`` takes the pairs ``i``, ``i + n``, ... A few CTAs stand for all.
        """
        return _heaviest_walk(self, num_ctas)


@lru_cache(maxsize=1024)
def _heaviest_walk(work: Work, num_ctas: int) -> tuple[int, int]:
    best = (0, 0)
    for cta in {0, num_ctas // 4, num_ctas // 2, 3 * num_ctas // 4, num_ctas - 1}:
        places = range(cta, work.num_pairs, num_ctas)
        best = max(best, (sum(map(work.blocks_of_pair, places)), 2 * len(places)))
    return best[1], best[0]


def count_work(problem: AttentionProblem, config: KernelConfig, arch: Arch) -> Work:
    """The tiles and blocks of ``problem`` under ``config``."""
    group = problem.qhead_per_kvhead if config.pack_gqa else 1
    heads = problem.num_heads_q // group
    dims = problem.head_dim + problem.head_dim_v
    head_bytes = problem.seqlen_k * dims * problem.dtype.itemsize
    section = max(l2_section_bytes(config, arch) // head_bytes, 1) * (
        problem.qhead_per_kvhead // group
    )
    whole = _count(
        (problem.batch * heads, section),
        (problem.seqlen_q, problem.seqlen_k, problem.causal),
        group,
        (rows_per_cta(config, arch) * config.cta_group, config.tile_n),
    )
    return whole if config.num_splits == 1 else _split(whole, config.num_splits)


def _split(work: Work, num_splits: int) -> Work:
    """The same tiles, each once for every share of its blocks."""
    return replace(
        work,
        num_groups=work.num_groups * num_splits,
        section=work.section * num_splits,
        blocks_per_tile=tuple(-(-n // num_splits) for n in work.blocks_per_tile),
        blocks_per_pair=tuple(-(-n // num_splits) for n in work.blocks_per_pair),
        masked_blocks_per_tile=work.masked_blocks_per_tile / num_splits,
    )


@lru_cache(maxsize=4096)
def _count(
    groups: tuple[int, int],
    shape: tuple[int, int, bool],
    rows_per_query: int,
    tile: tuple[int, int],
) -> Work:
    num_groups, section = groups[0], min(groups)
    seqlen_q, seqlen_k, causal = shape
    tile_m, tile_n = tile
    num_tiles = -(-seqlen_q * rows_per_query // tile_m)
    filled = seqlen_q * rows_per_query / (num_tiles * tile_m)
    ragged = 1.0 if seqlen_k % tile_n else 0.0
    if not causal:
        blocks = (-(-seqlen_k // tile_n),) * num_tiles
        return Work(num_groups, blocks, ragged, (), section, filled)
    lengths = []
    for tile_index in range(num_tiles):
        last_query = min(seqlen_q, -(-(tile_index + 1) * tile_m // rows_per_query))
        visible = max(0, min(seqlen_k, last_query + seqlen_k - seqlen_q))
        lengths.append(max(1, -(-visible // tile_n)))
    # The diagonal crosses the keys that the rows of one tile span, plus a block for alignment.
    diagonal = -(-tile_m // rows_per_query) / tile_n + 1.0
    masked = min(diagonal, max(lengths))
    whole = [*lengths, 1] if num_tiles % 2 else lengths  # the tile past the end is masked
    pairs = tuple(whole[i] + whole[-1 - i] for i in range(len(whole) // 2))
    longest_first = tuple(sorted(lengths, reverse=True))
    return Work(num_groups, longest_first, masked, pairs, section, filled)
