"""The rules, and the verdict made of all of them."""

from __future__ import annotations

from collections.abc import Callable

from fa4gen.core.config import KernelConfig
from fa4gen.core.problem import KernelSignature
from fa4gen.core.verdict import Reason, Verdict
from fa4gen.feasibility.footprint import (
    BOOKKEEPING_REGS,
    accumulator_regs,
    consumer_regs_needed,
    launch_regs,
    num_consumer_warpgroups,
    smem_buffers,
    smem_bytes,
)
from fa4gen.hardware import Arch

Rule = Callable[[KernelSignature, KernelConfig, Arch], Reason | None]

MAX_CONSUMER_WARPGROUPS = 3
"""With four, a consumer gets at most 112 registers: less than S and O of any useful tile."""

RULE_KNOBS = (
    "tile_m",
    "tile_n",
    "num_kv_stages",
    "p_in_registers",
    "intra_warpgroup_overlap",
    "pingpong",
    "regs_producer",
    "regs_consumer",
    "pack_gqa",
)
"""Knobs the rules read; a verdict never depends on any other."""

DERIVED_KNOBS = ("regs_consumer",)
"""Knobs whose canonical value follows from the others, see :func:`canonicalise`."""


def check(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Verdict:
    """Whether ``config`` may run ``signature`` on ``arch``, with all reasons why not."""
    rules = _RULES.get(arch.name)
    if rules is None:
        return Verdict((_no_kernel(arch),))
    return Verdict.of(rule(signature, config, arch) for rule in rules)


def supported_archs() -> tuple[str, ...]:
    """Names of the architectures that have rules, and so may have kernels."""
    return tuple(sorted(_RULES))


def _no_kernel(arch: Arch) -> Reason:
    message = (
        f"arch: got {arch.name}, allowed: {', '.join(supported_archs())}; "
        f"no template is written for {arch.name}"
    )
    return Reason("arch", message, 1.0)


def _head_dim(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
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


def _smem(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    needed, limit = smem_bytes(signature, config, arch), arch.smem_per_cta_bytes
    if needed <= limit:
        return None
    parts = " + ".join(f"{k} {v}" for k, v in smem_buffers(signature, config).items() if v)
    remedy = "lower num_kv_stages or tile_n" if config.num_kv_stages > 1 else "lower tile_n"
    message = f"smem: needs {needed} B ({parts}), {arch.name} allows {limit} B; {remedy}"
    return Reason("smem", message, needed / limit - 1)


def _registers(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    needed = consumer_regs_needed(signature, config)
    limit = min(config.regs_consumer, arch.max_regs_per_thread)
    if needed <= limit:
        return None
    live = accumulator_regs(signature, config)
    message = (
        f"registers: a consumer thread needs {needed} (S, O and P {live} + {BOOKKEEPING_REGS}), "
        f"allowed: {limit}; lower tile_n, or turn off p_in_registers or intra_warpgroup_overlap"
    )
    return Reason("registers", message, needed / limit - 1)


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


def _pingpong(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
    if not config.pingpong or num_consumer_warpgroups(config) > 1:
        return None
    message = (
        f"pingpong: got true with 1 consumer warpgroup (tile_m {config.tile_m}), allowed: with 2 "
        f"or more, who take turns; turn pingpong off or raise tile_m"
    )
    return Reason("pingpong", message, 1.0)


def _pack_gqa(signature: KernelSignature, config: KernelConfig, arch: Arch) -> Reason | None:
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


_RULES: dict[str, tuple[Rule, ...]] = {
    "sm90": (
        _head_dim,
        _consumer_warpgroups,
        _smem,
        _registers,
        _register_pool,
        _pingpong,
        _pack_gqa,
    ),
}
