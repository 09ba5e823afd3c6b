"""Cycles of one KV block of one CTA, by the kernel of its architecture."""

from __future__ import annotations

from collections.abc import Callable

from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import UnknownName
from fa4gen.core.problem import KernelSignature
from fa4gen.hardware import Arch
from fa4gen.perf import sm90_block, sm100_block
from fa4gen.perf.cost import BlockCost

_BLOCKS: dict[str, Callable[[KernelSignature, KernelConfig, Arch], BlockCost]] = {
    "sm90": sm90_block.block_cost,
    "sm100": sm100_block.block_cost,
}


def block_cost(signature: KernelSignature, config: KernelConfig, arch: Arch) -> BlockCost:
    """The cost of one KV block of one CTA in the steady state.

    Raises:
        UnknownName: nothing is known of a kernel for this arch.
    """
    try:
        block = _BLOCKS[arch.family]
    except KeyError:
        raise UnknownName("arch with a cycle model", arch.name, _BLOCKS) from None
    return block(signature, config, arch)
