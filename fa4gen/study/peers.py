"""Splits of exp2 that others set by hand: data with sources, from ``peers.toml``."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import ResourceError
from fa4gen.core.problem import KernelSignature

_DATA = Path(__file__).with_name("peers.toml")
_NEEDED = {"who", "archs", "knobs", "source"}
_OPTIONAL = {"head_dim_min", "head_dim_max", "causal"}


@dataclass(frozen=True, slots=True)
class PeerPoint:
    """One hand-set split."""

    who: str
    archs: tuple[str, ...]
    knobs: dict[str, KnobValue]
    source: str
    head_dim_min: int = 0
    """Padded; as the largest."""
    head_dim_max: int = 1 << 30
    causal: bool | None = None
    """The mask it holds for; ``None`` for both."""

    def belongs(self, signature: KernelSignature, arch_name: str) -> bool:
        """Whether they would use it there: all are choices for kernels of 16 bits."""
        return (
            arch_name in self.archs
            and signature.dtype is not DType.E4M3
            and self.head_dim_min <= signature.head_dim_padded <= self.head_dim_max
            and self.causal in (None, signature.causal)
        )


def peer_points(signature: KernelSignature, arch_name: str) -> tuple[PeerPoint, ...]:
    """The hand-set splits for a kernel signature on an arch, in the order of the file."""
    return tuple(point for point in _load() if point.belongs(signature, arch_name))


@cache
def _load() -> tuple[PeerPoint, ...]:
    data = tomllib.loads(_DATA.read_text(encoding="utf-8"))
    return tuple(_point(entry) for entry in data["point"])


def _point(entry: dict[str, Any]) -> PeerPoint:
    got = set(entry)
    if not got >= _NEEDED or not got <= _NEEDED | _OPTIONAL:
        raise ResourceError(
            f"{_DATA.name}: got a point with {', '.join(sorted(got))}, allowed: "
            f"{', '.join(sorted(_NEEDED))} and perhaps {', '.join(sorted(_OPTIONAL))}"
        )
    KernelConfig.from_dict(entry["knobs"])
    return PeerPoint(**entry | {"archs": tuple(entry["archs"])})
