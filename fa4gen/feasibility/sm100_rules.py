"""What the Blackwell forward kernel cannot do."""

from __future__ import annotations

from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.problem import KernelSignature
from fa4gen.core.verdict import Reason
from fa4gen.feasibility.common import (
    Family,
    head_dim,
    pack_gqa,
    rescale_threshold,
    rule,
    scheduler_reason,
    smem_reason,
)
from fa4gen.feasibility.sm100_footprint import (
    CORRECTION_BOOKKEEPING_REGS,
    FRAGMENT_COLUMNS,
    LEAST_REGS_OTHER,
    OTHER_WARPGROUPS,
    SOFTMAX_BOOKKEEPING_REGS,
    correction_regs_needed,
    l2_section_bytes,
    launch_regs,
    num_threads,
    rows_per_cta,
    smem_buffers,
    softmax_regs_needed,
    tmem_columns,
)
from fa4gen.hardware import Arch

FUSED_ROW_MAX_CAPABILITY = (10, 3)
"""The first compute capability with ``tcgen05.ld.red``. Source: PTX ISA 9.1, tcgen05.ld."""

LEAST_KV_STAGES = 2
"""K of the next block is needed before V of this one is free."""


@rule("tile_m", "tile_n")
def _tile(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    if config.tile_m != arch.mma_rows:
        message = (
            f"tile_m: got {config.tile_m}, allowed: {arch.mma_rows}, the rows of one CTA's MMA and "
            f"the lanes of tensor memory; more rows come with num_q_stages and cta_group"
        )
        return Reason("tile_m", message, abs(config.tile_m / arch.mma_rows - 1))
    if config.tile_n % FRAGMENT_COLUMNS or config.tile_n < 2 * FRAGMENT_COLUMNS:
        message = (
            f"tile_n: got {config.tile_n}, allowed: multiples of {FRAGMENT_COLUMNS} from "
            f"{2 * FRAGMENT_COLUMNS}, the columns of a load from tensor memory"
        )
        return Reason("tile_n", message, 1.0)
    return None


@rule("tile_n", "num_q_stages")
def _tmem(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    needed, limit = tmem_columns(signature, config), arch.tmem_columns
    if needed <= limit:
        return None
    message = (
        f"tmem: needs {config.num_q_stages} x (S {config.tile_n} + O "
        f"{signature.head_dim_v_padded}) = {needed} columns, {arch.name} has {limit}; lower "
        f"{'num_q_stages or ' if config.num_q_stages > 1 else ''}tile_n"
    )
    return Reason("tmem", message, needed / limit - 1)


@rule("tile_m", "tile_n", "num_q_stages", "num_kv_stages", "cta_group", "o_aliases_q")
def _smem(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    alias = "" if config.o_aliases_q else "turn o_aliases_q on, or "
    remedy = f"{alias}lower num_kv_stages or tile_n"
    return smem_reason(smem_buffers(signature, config), arch, remedy)


@rule("num_kv_stages")
def _kv_stages(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    if config.num_kv_stages >= LEAST_KV_STAGES:
        return None
    message = (
        f"num_kv_stages: got {config.num_kv_stages}, allowed: {LEAST_KV_STAGES} or more, as K of "
        f"the next block is needed while V of this one is in use"
    )
    return Reason("num_kv_stages", message, 1.0)


@rule("tile_n", "cta_group")
def _cta_group(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    if config.cta_group == 1:
        return None
    halves = {"tile_n": config.tile_n, "head_dim_v": signature.head_dim_v_padded}
    for name, columns in halves.items():
        if columns % 32:
            message = (
                f"cta_group: got 2 with {name} {columns}, allowed: multiples of 32 = 2 x 16, as "
                f"each CTA holds half of K's rows and of V's columns; use cta_group 1"
            )
            return Reason("cta_group", message, 1.0)
    return None


@rule("tile_n", "correction_columns", "regs_softmax", "regs_correction", "regs_other")
def _registers(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    roles = (
        ("softmax", config.regs_softmax, softmax_regs_needed(config),
         f"S {config.tile_n} + {SOFTMAX_BOOKKEEPING_REGS}", "lower tile_n"),
        ("correction", config.regs_correction, correction_regs_needed(config),
         f"O {config.correction_columns} + {CORRECTION_BOOKKEEPING_REGS}",
         "lower correction_columns"),
        ("other", config.regs_other, LEAST_REGS_OTHER, "descriptors and addresses",
         "lower regs_softmax or regs_correction"),
    )  # fmt: skip
    for role, got, needed, parts, remedy in roles:
        if got < needed:
            message = (
                f"registers: a thread of role {role} needs {needed} ({parts}), got regs_{role} "
                f"{got}; raise it, or {remedy}"
            )
            return Reason("registers", message, needed / got - 1)
    return None


@rule("num_q_stages", "regs_softmax", "regs_correction", "regs_other")
def _register_pool(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    tiles = config.num_q_stages
    needed = tiles * config.regs_softmax + config.regs_correction + config.regs_other
    start, warpgroups = launch_regs(config, arch), tiles + OTHER_WARPGROUPS
    if needed <= start * warpgroups:
        return None
    message = (
        f"register_pool: needs {tiles} x {config.regs_softmax} + {config.regs_correction} + "
        f"{config.regs_other} = {needed} per thread column, allowed: {warpgroups} warpgroups x "
        f"{start} at launch = {start * warpgroups}; setmaxnreg would wait for ever; lower one of "
        f"regs_softmax, regs_correction and regs_other"
    )
    return Reason("register_pool", message, needed / (start * warpgroups) - 1)


@rule("correction_columns")
def _correction(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    columns = signature.head_dim_v_padded
    if columns % config.correction_columns == 0:
        return None
    message = (
        f"correction_columns: got {config.correction_columns}, allowed: divisors of head_dim_v "
        f"{columns} ({columns} % {config.correction_columns} = "
        f"{columns % config.correction_columns}); lower it"
    )
    return Reason("correction_columns", message, 1.0)


@rule("fused_row_max")
def _fused_row_max(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    if not config.fused_row_max or arch.compute_capability >= FUSED_ROW_MAX_CAPABILITY:
        return None
    return Reason(
        "fused_row_max",
        f"fused_row_max: got true on {arch.name}, allowed: from compute capability 10.3 on, which "
        f"has tcgen05.ld.red; turn it off",
        1.0,
    )


@rule("scheduler", repaired=True)
def _scheduler(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    return scheduler_reason(config, (Scheduler.LPT, Scheduler.PERSISTENT, Scheduler.CLC))


@rule("num_splits")
def _num_splits(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    if config.num_splits == 1:
        return None
    message = (
        f"num_splits: got {config.num_splits}, allowed: 1 on {arch.name}, whose kernel has no "
        f"second one to combine splits; set it to 1"
    )
    return Reason("num_splits", message, float(config.num_splits - 1))


@rule()
def _dtype(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    if signature.dtype.itemsize > 1:
        return None
    message = (
        f"dtype: got {signature.dtype.value}, allowed on {arch.name}: bf16, fp16, as its kernel "
        f"has no 8-bit form; convert Q, K and V"
    )
    return Reason("dtype", message, 1.0)


FAMILY = Family(
    rules=(
        _dtype,
        head_dim,
        _tile,
        _tmem,
        _smem,
        _kv_stages,
        _cta_group,
        _registers,
        _register_pool,
        _correction,
        _fused_row_max,
        _scheduler,
        _num_splits,
        rescale_threshold,
        pack_gqa,
    ),
    derived_knobs=("regs_other",),
    smem_buffers=smem_buffers,
    num_threads=num_threads,
    rows_per_cta=rows_per_cta,
    l2_section_bytes=l2_section_bytes,
)
"""The kernel of sm_100a and sm_103a."""
