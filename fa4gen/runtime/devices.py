"""From what a driver says of a GPU to the SKU whose rows and numbers apply."""

from __future__ import annotations

from dataclasses import dataclass

from fa4gen.core.errors import InputError, UnknownName
from fa4gen.feasibility import supported_archs
from fa4gen.hardware import Arch, Sku, list_archs, list_skus, load_arch, load_sku, sku_for_gpu


@dataclass(frozen=True, slots=True)
class GpuFacts:
    """What a driver reports of one GPU."""

    name: str
    sm_count: int
    compute_capability: tuple[int, int]


@dataclass(frozen=True, slots=True)
class ResolvedSku:
    """The SKU to select kernels for."""

    sku: Sku
    stand_in: bool = False
    """The GPU is unknown; ``sku`` is the known one of its arch with the nearest SM count."""
    warning: str = ""
    """What the user should be told, once."""


def resolve_sku(gpu: GpuFacts, override: str | None = None) -> ResolvedSku:
    """The SKU of a GPU; ``override`` (``FA4GEN_SKU``) names it instead.

    Raises:
        UnknownName: ``override`` is no SKU.
        InputError: no kernel runs on this GPU, or ``override`` is of another arch.
    """
    arch = _arch_of(gpu)
    if override is not None:
        sku = load_sku(override)
        if sku.arch.name != arch.name:
            raise InputError(
                f"FA4GEN_SKU: got {override} ({sku.arch.name}), allowed on {gpu.name}: "
                f"{', '.join(_skus_of(arch))} ({arch.name}); unset it or name one of these"
            )
        return ResolvedSku(sku)
    try:
        return ResolvedSku(sku_for_gpu(gpu.name, gpu.sm_count))
    except UnknownName:
        nearest = min(
            (load_sku(name) for name in _skus_of(arch)),
            key=lambda sku: (abs(sku.sm_count - gpu.sm_count), sku.name),
        )
        warning = (
            f"GPU: got {gpu.name} with {gpu.sm_count} SMs, which fa4gen has no SKU file for; "
            f"kernels are selected as for {nearest.name} ({nearest.sm_count} SMs, {arch.name}). "
            f"Set FA4GEN_SKU to choose another, and tune on this GPU for its own table"
        )
        return ResolvedSku(nearest, stand_in=True, warning=warning)


def _arch_of(gpu: GpuFacts) -> Arch:
    """The arch of this compute capability, if there are kernels for it.

    Raises:
        InputError: there are none.
    """
    archs = [load_arch(name) for name in list_archs()]
    runnable = [arch for arch in archs if arch.name in supported_archs()]
    for arch in runnable:
        if arch.compute_capability == gpu.compute_capability and _skus_of(arch):
            return arch
    allowed = ", ".join(f"{_dotted(arch.compute_capability)} ({arch.name})" for arch in runnable)
    raise InputError(
        f"GPU: got {gpu.name} of compute capability {_dotted(gpu.compute_capability)}, allowed: "
        f"{allowed}; fa4gen has no kernel template for this GPU, use "
        f"torch.nn.functional.scaled_dot_product_attention there"
    )


def _skus_of(arch: Arch) -> list[str]:
    return [name for name in list_skus() if load_sku(name).arch.name == arch.name]


def _dotted(compute_capability: tuple[int, int]) -> str:
    return ".".join(map(str, compute_capability))
