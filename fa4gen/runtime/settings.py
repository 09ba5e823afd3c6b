"""What the environment says about the runtime; read once, when the first call needs it.

=======================  ==========================================================================
variable                 meaning
=======================  ==========================================================================
``FA4GEN_DB``            the user's tuning database, a path or a SQLAlchemy URL; by default
                         ``tuning.sqlite`` in the user's data folder
``FA4GEN_CACHE_DIR``     compiled kernels; by default the user's cache folder
``FA4GEN_HOME``          folder with ``templates``, ``search_spaces``, ``tuning_db``, ``workloads``
``FA4GEN_SKU``           SKU to select kernels for, instead of the one the driver reports
``FA4GEN_POLICY``        measurement policy whose rows are preferred, e.g. ``eager-warm-burst``;
                         by default ``graph-cold-sustained``
``FA4GEN_REQUIRE_EXACT`` ``1``: raise where the table has no row for the very problem, so that the
                         same table always means the same kernels
=======================  ==========================================================================

An argument goes before the environment, the environment before the default. The first three are
read by :mod:`fa4gen.db`, :mod:`fa4gen.compile` and :mod:`fa4gen.core.paths`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from fa4gen.core.errors import UnknownName
from fa4gen.core.evaluation import Execution, L2State, MeasurementPolicy, Thermal

_SWITCH = {"": False, "0": False, "1": True}


@dataclass(frozen=True, slots=True)
class RuntimeSettings:
    """How the runtime selects kernels."""

    sku: str | None = None
    """Name of the SKU to select for; ``None`` asks the driver."""
    policy: MeasurementPolicy = field(default_factory=MeasurementPolicy)
    """Rows timed under this policy go before others."""
    require_exact: bool = False
    """Refuse everything but a row of the very problem on this SKU."""
    radius_log2: float = 2.0
    """Farthest a row of another shape may lie; see :func:`fa4gen.runtime.selector.distance_log2`.
    2 is a factor of 4 in one direction, or of 2.2 in all three."""

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Self:
        """The settings that the environment variables ask for.

        Raises:
            UnknownName: a variable with a value that means nothing.
        """
        environ = os.environ if environ is None else environ
        switch = environ.get("FA4GEN_REQUIRE_EXACT", "")
        if switch not in _SWITCH:
            raise UnknownName("value of FA4GEN_REQUIRE_EXACT", switch, ("0", "1"))
        return cls(
            sku=environ.get("FA4GEN_SKU") or None,
            policy=_policy(environ.get("FA4GEN_POLICY", "")),
            require_exact=_SWITCH[switch],
        )


def _policy(text: str) -> MeasurementPolicy:
    if not text:
        return MeasurementPolicy()
    try:
        return MeasurementPolicy.parse(text)
    except ValueError:
        known = (MeasurementPolicy(e, w, t) for e in Execution for w in L2State for t in Thermal)
        raise UnknownName("value of FA4GEN_POLICY", text, map(str, known)) from None
