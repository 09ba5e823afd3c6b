"""What the Hopper forward kernel cannot do."""

from __future__ import annotations

from fa4gen.core.config import KernelConfig, Scheduler
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import KernelSignature
from fa4gen.core.verdict import Reason
from fa4gen.feasibility.common import (
    LEAST_DEGREE_16_BIT,
    Family,
    head_dim,
    pack_gqa,
    rescale_threshold,
    rows_per_query,
    rule,
    scheduler_reason,
    smem_reason,
)
from fa4gen.feasibility.sm90_footprint import (
    BOOKKEEPING_REGS,
    ROWS_PER_WARPGROUP,
    accumulator_regs,
    consumer_regs_needed,
    ctas_per_sm,
    l2_section_bytes,
    launch_regs,
    num_consumer_warpgroups,
    num_threads,
    rows_per_cta,
    smem_buffers,
)
from fa4gen.hardware import Arch

MAX_CONSUMER_WARPGROUPS = 3
"""With four, a consumer gets at most 112 registers: less than S and O of any useful tile."""


@rule("tile_m")
def _consumer_warpgroups(
    signature: KernelSignature, config: KernelConfig, arch: Arch
) -> Reason | None:
    consumers = num_consumer_warpgroups(config)
    if consumers <= MAX_CONSUMER_WARPGROUPS:
        return None
    message = (
        f"tile_m: got {config.tile_m} = {consumers} consumer warpgroups x {arch.mma_rows} rows, "
        f"allowed: up to {MAX_CONSUMER_WARPGROUPS}; lower tile_m to "
        f"{MAX_CONSUMER_WARPGROUPS * arch.mma_rows}"
    )
    return Reason("consumer_warpgroups", message, consumers / MAX_CONSUMER_WARPGROUPS - 1)


@rule("tile_m", "tile_n", "num_kv_stages", "p_in_registers", "q_prefetch")
def _smem(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    remedy = "lower num_kv_stages or tile_n" if config.num_kv_stages > 1 else "lower tile_n"
    remedy += ", or turn q_prefetch off" if config.q_prefetch else ""
    return smem_reason(smem_buffers(signature, config), arch, remedy)


@rule("tile_n", "p_in_registers", "intra_warpgroup_overlap", "p_buffers", "regs_consumer")
def _registers(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    needed = consumer_regs_needed(signature, config)
    limit = min(config.regs_consumer, arch.max_regs_per_thread)
    if needed <= limit:
        return None
    live = accumulator_regs(signature, config)
    message = (
        f"registers: a consumer thread needs {needed} (S, O and P {live} + {BOOKKEEPING_REGS}), "
        f"allowed: {limit}; lower tile_n, or turn off p_in_registers or intra_warpgroup_overlap"
        + (", or set p_buffers to 1" if config.p_buffers > 1 else "")
    )
    return Reason("registers", message, needed / limit - 1)


@rule("tile_m", "regs_producer", "regs_consumer")
def _register_pool(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    consumers = num_consumer_warpgroups(config)
    needed = config.regs_producer + consumers * config.regs_consumer
    start = launch_regs(config, arch)
    pool = start * (1 + consumers)
    if needed <= pool:
        return None
    message = (
        f"register_pool: needs {config.regs_producer} + {consumers} x {config.regs_consumer} = "
        f"{needed} per thread column, allowed: {1 + consumers} warpgroups x {start} at launch = "
        f"{pool}; setmaxnreg would wait for ever; lower regs_consumer or regs_producer"
    )
    return Reason("register_pool", message, needed / pool - 1)


@rule("tile_m", "pingpong")
def _pingpong(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    if not config.pingpong or num_consumer_warpgroups(config) > 1:
        return None
    message = (
        f"pingpong: got true with 1 consumer warpgroup (tile_m {config.tile_m}), allowed: with 2 "
        f"or more, who take turns; turn pingpong off or raise tile_m"
    )
    return Reason("pingpong", message, 1.0)


@rule("scheduler", repaired=True)
def _scheduler(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    return scheduler_reason(config, (Scheduler.LPT, Scheduler.PERSISTENT, Scheduler.DYNAMIC))


@rule("scheduler", "num_splits", repaired=True)
def _dynamic_splits(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    if config.scheduler is not Scheduler.DYNAMIC or config.num_splits == 1:
        return None
    message = (
        f"num_splits: got {config.num_splits} with scheduler dynamic, allowed: 1, since splits "
        f"exist where tiles are too few to be waited for; choose persistent or lpt"
    )
    return Reason("num_splits", message, float(config.num_splits - 1))


@rule("q_prefetch", "scheduler", repaired=True)
def _q_prefetch(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    if not config.q_prefetch or config.scheduler is not Scheduler.LPT:
        return None
    message = (
        f"q_prefetch: got true with scheduler {config.scheduler.value}, allowed: with persistent "
        f"and dynamic, where a CTA has a next tile; turn q_prefetch off"
    )
    return Reason("q_prefetch", message, 1.0)


@rule("lazy_row_max", "rescale_threshold_log2")
def _lazy_row_max(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    if not config.lazy_row_max or config.rescale_threshold_log2 > 0:
        return None
    message = (
        "lazy_row_max: got true with rescale_threshold_log2 0, allowed: above 0, since a maximum "
        "that is not looked for has to be allowed to grow; turn lazy_row_max off"
    )
    return Reason("lazy_row_max", message, 1.0)


@rule("tile_n")
def _whole_products(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    """The keys of a block are the K of the PV product: whole MMAs of them."""
    granule = signature.dtype.head_dim_granule
    if config.tile_n % granule == 0:
        return None
    message = (
        f"tile_n: got {config.tile_n}, allowed in {signature.dtype.value}: multiples of {granule}, "
        f"K of one wgmma ({config.tile_n} % {granule} = {config.tile_n % granule}); change tile_n"
    )
    return Reason("tile_n", message, config.tile_n % granule / granule)


@rule("p_in_registers")
def _p_in_registers(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    if config.p_in_registers or signature.dtype is not DType.E4M3:
        return None
    message = (
        "p_in_registers: got false in e4m3, allowed: true, since keys are in the order in which "
        "registers hold P; turn p_in_registers on"
    )
    return Reason("p_in_registers", message, 1.0)


@rule("exp2_poly_fraction", "exp2_poly_degree", repaired=True)
def _polynomial_digits(
    signature: KernelSignature, config: KernelConfig, arch: Arch
) -> Reason | None:
    """A line through each octave errs less than rounding to e4m3, but more than to 16 bits."""
    degree, dtype = config.exp2_poly_degree, signature.dtype
    if not config.exp2_poly_fraction or degree >= LEAST_DEGREE_16_BIT or dtype is DType.E4M3:
        return None
    message = (
        f"exp2_poly_degree: got {degree}, which errs by up to 6.1 %, allowed in {dtype.value}: "
        f"{LEAST_DEGREE_16_BIT} or more (0.2 %); raise it"
    )
    return Reason("exp2_poly_degree", message, 1.0)


@rule("pack_gqa", "tile_m")
def _pack_gqa(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    """A box of 64 rows holds the query heads of a KV head, or the tile does."""
    padded = signature.qhead_per_kvhead > 1
    padded &= rows_per_query(signature, config) <= ROWS_PER_WARPGROUP
    return None if padded else pack_gqa(signature, config, arch)


@rule("pack_gqa", "tile_m", "num_splits", repaired=True)
def _padded_queries(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    """Rows that no head has are left out where rows leave one by one, which TMA's boxes do not."""
    group = signature.qhead_per_kvhead
    if not config.pack_gqa or config.tile_m % group == 0 or config.num_splits > 1:
        return None
    message = (
        f"pack_gqa: got true with tile_m {config.tile_m}, qhead_per_kvhead {group} and num_splits "
        f"1, allowed: tile_m a multiple of qhead_per_kvhead ({config.tile_m} % {group} = "
        f"{config.tile_m % group}), or num_splits of 2 or more; raise num_splits or turn pack_gqa "
        f"off"
    )
    return Reason("pack_gqa", message, 1.0)


FAMILY = Family(
    rules=(
        head_dim,
        _consumer_warpgroups,
        _smem,
        _registers,
        _register_pool,
        _pingpong,
        _scheduler,
        _dynamic_splits,
        _q_prefetch,
        _lazy_row_max,
        _whole_products,
        _p_in_registers,
        _polynomial_digits,
        rescale_threshold,
        _pack_gqa,
        _padded_queries,
    ),
    derived_knobs=("regs_consumer",),
    smem_buffers=smem_buffers,
    num_threads=num_threads,
    rows_per_cta=rows_per_cta,
    l2_section_bytes=l2_section_bytes,
    ctas_per_sm=ctas_per_sm,
)
"""The kernel of sm_90a."""
