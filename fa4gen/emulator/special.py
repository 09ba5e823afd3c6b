"""Special registers.

Source: PTX ISA 9.1, section 10.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from fa4gen.core.errors import UnsupportedInstruction

if TYPE_CHECKING:
    from fa4gen.emulator.warp import Warp

_AXES = "xyz"


def special_value(name: str, warp: Warp) -> npt.NDArray[np.uint64]:
    """The value of a special register in every lane.

    Raises:
        UnsupportedInstruction: a register that is not known, or not constant while a warp runs.
    """
    base, _, axis = name.removeprefix("%").partition(".")
    value: int | npt.NDArray[np.uint64]
    if base == "tid":
        value = _tid(warp)[_AXES.index(axis)]
    elif base in _VECTORS and axis in _AXES:
        value = _VECTORS[base](warp)[_AXES.index(axis)]
    elif base in _SCALARS and not axis:
        value = _SCALARS[base](warp)
    else:
        raise UnsupportedInstruction(
            f"special register: got {name}, known: %tid, "
            + ", ".join(f"%{known}" for known in sorted([*_VECTORS, *_SCALARS]))
        )
    return np.broadcast_to(np.asarray(value, np.uint64), 32)


def _tid(warp: Warp) -> tuple[npt.NDArray[np.uint64], ...]:
    x, y, _ = warp.cta.cluster.grid.shape.block
    linear = np.arange(32, dtype=np.uint64) + np.uint64(32 * warp.index)
    return linear % np.uint64(x), linear // np.uint64(x) % np.uint64(y), linear // np.uint64(x * y)


def _clusters(warp: Warp) -> tuple[int, ...]:
    shape = warp.cta.cluster.grid.shape
    return tuple(g // c for g, c in zip(shape.grid, shape.cluster, strict=True))


def _in_cluster(warp: Warp) -> tuple[int, ...]:
    return tuple(a - b for a, b in zip(warp.cta.index, warp.cta.cluster.first, strict=True))


_LANES = np.arange(32, dtype=np.uint64)
_VECTORS: dict[str, Callable[[Warp], tuple[int, ...]]] = {
    "ntid": lambda w: w.cta.cluster.grid.shape.block,
    "ctaid": lambda w: w.cta.index,
    "nctaid": lambda w: w.cta.cluster.grid.shape.grid,
    "cluster_ctaid": _in_cluster,
    "cluster_nctaid": lambda w: w.cta.cluster.grid.shape.cluster,
    "clusterid": lambda w: tuple(
        a // b for a, b in zip(w.cta.index, w.cta.cluster.grid.shape.cluster, strict=True)
    ),
    "nclusterid": _clusters,
}
_SCALARS: dict[str, Callable[[Warp], int | npt.NDArray[np.uint64]]] = {
    "laneid": lambda _: _LANES,
    "warpid": lambda w: w.index,
    "nwarpid": lambda w: len(w.cta.warps),
    "smid": lambda w: w.cta.linear_index,
    "cluster_ctarank": lambda w: w.cta.rank,
    "cluster_nctarank": lambda w: len(w.cta.cluster.ctas),
    "lanemask_eq": lambda _: np.uint64(1) << _LANES,
    "lanemask_lt": lambda _: (np.uint64(1) << _LANES) - np.uint64(1),
    "lanemask_le": lambda _: (np.uint64(2) << _LANES) - np.uint64(1),
    "lanemask_gt": lambda _: np.uint64(0xFFFFFFFF) ^ ((np.uint64(2) << _LANES) - np.uint64(1)),
    "lanemask_ge": lambda _: np.uint64(0xFFFFFFFF) ^ ((np.uint64(1) << _LANES) - np.uint64(1)),
    "dynamic_smem_size": lambda w: w.cta.cluster.grid.shape.dynamic_smem,
}
