"""May this configuration run this problem on this arch? One small function per rule.

The search space, the tuner, the selector and the templates all ask here and state nothing twice.
"""

from fa4gen.feasibility.canonical import canonicalise
from fa4gen.feasibility.check import DERIVED_KNOBS, RULE_KNOBS, check, supported_archs
from fa4gen.feasibility.footprint import (
    accumulator_regs,
    consumer_regs_needed,
    full_regs_consumer,
    launch_regs,
    num_consumer_warpgroups,
    num_threads,
    smem_buffers,
    smem_bytes,
)

__all__ = [
    "DERIVED_KNOBS",
    "RULE_KNOBS",
    "accumulator_regs",
    "canonicalise",
    "check",
    "consumer_regs_needed",
    "full_regs_consumer",
    "launch_regs",
    "num_consumer_warpgroups",
    "num_threads",
    "smem_buffers",
    "smem_bytes",
    "supported_archs",
]
