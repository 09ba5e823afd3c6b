"""May this configuration run this problem on this arch? One small function per rule.

The search space, the tuner, the selector and the templates all ask here and state nothing twice.
What a kernel takes is said for each family of architectures: ``sm90_footprint``,
``sm100_footprint``.
"""

from fa4gen.feasibility.canonical import canonicalise
from fa4gen.feasibility.check import (
    check,
    ctas_per_sm,
    derived_knobs,
    l2_section_bytes,
    num_threads,
    rows_per_cta,
    rule_knobs,
    rules,
    smem_bytes,
    supported_archs,
)
from fa4gen.feasibility.common import rows_per_query

__all__ = [
    "canonicalise",
    "check",
    "ctas_per_sm",
    "derived_knobs",
    "l2_section_bytes",
    "num_threads",
    "rows_per_cta",
    "rows_per_query",
    "rule_knobs",
    "rules",
    "smem_bytes",
    "supported_archs",
]
