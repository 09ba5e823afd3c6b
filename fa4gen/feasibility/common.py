"""Rules that hold for the kernels of more than one architecture."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import KernelSignature
from fa4gen.core.verdict import Reason
from fa4gen.hardware import Arch

RuleFunction = Callable[[KernelSignature, KernelConfig, Arch], Reason | None]


@dataclass(frozen=True, slots=True)
class Rule:
    """One way in which a configuration can be impossible."""

    reads: tuple[str, ...]
    """The knobs it looks at: without any other it comes to the same."""
    function: RuleFunction
    repaired: bool = False
    """Whether the canonical form of a configuration is one to which it has no objection."""

    def __call__(
        self, signature: KernelSignature, config: KernelConfig, arch: Arch
    ) -> Reason | None:
        """The reason why not, or nothing."""
        return self.function(signature, config, arch)


def rule(*reads: str, repaired: bool = False) -> Callable[[RuleFunction], Rule]:
    """Make a function a :class:`Rule` that looks at these knobs."""
    return lambda function: Rule(reads, function, repaired)


@dataclass(frozen=True, slots=True)
class Family:
    """What feasibility knows of the kernel that some architectures share."""

    rules: tuple[Rule, ...]
    derived_knobs: tuple[str, ...]
    """Knobs whose canonical value follows from the others."""
    smem_buffers: Callable[[KernelSignature, KernelConfig], dict[str, int]]
    """Bytes of each shared buffer of a CTA."""
    num_threads: Callable[[KernelConfig], int]
    """Threads of a CTA."""
    rows_per_cta: Callable[[KernelConfig], int]
    """Query rows of a CTA."""
    l2_section_bytes: Callable[[KernelConfig], int]
    """K and V that the tiles in flight should share in the L2."""
    ctas_per_sm: Callable[[KernelSignature, KernelConfig, Arch], int] = lambda *_: 1
    """CTAs that share the registers of an SM."""


LEAST_DEGREE_16_BIT = 2
"""Least degree of the polynomial in Hopper's 16-bit kernels. Degree 2 errs by 2.0e-3, half of what
rounding P to bf16 may; degree 1 by 6.1e-2, which is less than rounding to e4m3 may (6.25e-2)."""

REG_GRANULE = 8
"""Registers are allotted per thread in these steps. Source: PTX ISA, setmaxnreg."""

MAX_REGS_SETMAXNREG = 256
"""Largest operand of ``setmaxnreg``. Source: PTX ISA, setmaxnreg."""

SMEM_ALIGNMENT_BYTES = 1024
"""Alignment of every tile: the period of the 128-byte swizzle.

Source: PTX ISA, shared memory matrix descriptor.
"""


def aligned(size_bytes: int) -> int:
    """``size_bytes`` rounded up to :data:`SMEM_ALIGNMENT_BYTES`."""
    return -(-size_bytes // SMEM_ALIGNMENT_BYTES) * SMEM_ALIGNMENT_BYTES


def share_of_registers(num_threads: int, arch: Arch) -> int:
    """Registers per thread a CTA starts with: an even share of the SM, in steps of 8.

    ``setmaxnreg`` moves registers between the warpgroups of a CTA but never adds any, so this
    times the number of threads is the pool.
    """
    share = arch.regs_per_sm // num_threads // REG_GRANULE * REG_GRANULE
    return min(share, MAX_REGS_SETMAXNREG)


def smem_reason(buffers: dict[str, int], arch: Arch, remedy: str) -> Reason | None:
    """Objects where the buffers of a CTA do not fit in its shared memory."""
    needed, limit = sum(buffers.values()), arch.smem_per_cta_bytes
    if needed <= limit:
        return None
    parts = " + ".join(f"{k} {v}" for k, v in buffers.items() if v)
    message = f"smem: needs {needed} B ({parts}), {arch.name} allows {limit} B; {remedy}"
    return Reason("smem", message, needed / limit - 1)


def scheduler_reason(config: KernelConfig, allowed: Collection[Scheduler]) -> Reason | None:
    """Objects to a scheduler that the kernel does not have."""
    if config.scheduler in allowed:
        return None
    names = ", ".join(scheduler.value for scheduler in allowed)
    return Reason("scheduler", f"scheduler: got {config.scheduler.value}, allowed: {names}", 1.0)


@rule()
def head_dim(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    """One MMA and one TMA box hold the columns of a head."""
    limit = arch.mma_max_columns
    for name in ("head_dim", "head_dim_v"):
        got, padded = getattr(signature, name), getattr(signature, f"{name}_padded")
        if padded > limit:
            message = (
                f"{name}: got {got} (padded {padded}), allowed: up to {limit}, the columns of one "
                f"MMA and of one TMA box; split the heads"
            )
            return Reason("head_dim", message, padded / limit - 1)
    return None


P_HEADROOM_LOG2 = {DType.FP16: 14.0, DType.BF16: 64.0, DType.E4M3: 4.0}
"""Powers of two that P may exceed 1 by. fp16 ends at 65504, just below 2 ** 16; bf16 has float32's
range, of which this leaves 2 ** 63 for row sums and for V. e4m3 ends at 448 = 2 ** 8.8, and what a
threshold leaves of 8 its kernel uses to lift P away from the few digits of small numbers: with
nothing left O is too coarse where logits are large (19 of 19 kernels, 8 to 48 % above the allowed
error; none of 35 with 0 or 4; measured on an H200, 2026-11-21)."""


@rule("rescale_threshold_log2")
def rescale_threshold(
    signature: KernelSignature, config: KernelConfig, arch: Arch
) -> Reason | None:
    """P, which a stale row maximum lets grow to 2 ** threshold, fits its type and its digits."""
    got, limit = config.rescale_threshold_log2, P_HEADROOM_LOG2[signature.dtype]
    if got <= limit:
        return None
    message = (
        f"rescale_threshold_log2: got {got:g}, which lets P reach 2 ** {got:g}, allowed: up to "
        f"{limit:g} in {signature.dtype.value}; lower it"
    )
    return Reason("rescale_threshold", message, got / limit - 1)


def rows_per_query(signature: KernelSignature, config: KernelConfig) -> int:
    """Rows of a tile that a query takes: one for each query head that shares it.

    Where that number does not divide the tile they are rounded up to a power of two.
    """
    group = signature.qhead_per_kvhead if config.pack_gqa else 1
    return group if config.tile_m % group == 0 else 1 << (group - 1).bit_length()


@rule("pack_gqa", "tile_m")
def pack_gqa(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    """The query heads of a KV head fill whole tiles."""
    group = signature.qhead_per_kvhead
    if not config.pack_gqa or (group > 1 and config.tile_m % group == 0):
        return None
    if group == 1:
        message = "pack_gqa: got true with qhead_per_kvhead 1, allowed: 2 or more; turn it off"
    else:
        message = (
            f"pack_gqa: got true with tile_m {config.tile_m} and qhead_per_kvhead {group}, "
            f"allowed: tile_m a multiple of qhead_per_kvhead ({config.tile_m} % {group} = "
            f"{config.tile_m % group}); change tile_m or turn pack_gqa off"
        )
    return Reason("pack_gqa", message, 1.0)
