"""One kernel launch, as the compiled host function made it."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from fa4gen.core.errors import KernelFault

Index = tuple[int, int, int]

_COOPERATIVE, _CLUSTER, _PROGRAMMATIC = 2, 4, 6
_MAX_CTA_THREADS = 1024
_MAX_CTA_SIDES = (1024, 1024, 64)
_MAX_GRID_SIDES = (2**31 - 1, 65535, 65535)
_PORTABLE_CLUSTER, _LARGEST_CLUSTER = 8, 16


@dataclass(frozen=True, slots=True)
class LaunchAttribute:
    """A ``cudaLaunchAttribute``."""

    number: int
    """Its id: 2 cooperative, 4 cluster dimensions, 6 programmatic stream serialisation.

    Source: CUDA runtime API, ``cudaLaunchAttributeID``.
    """
    value: bytes
    """64 bytes; those behind what the id defines are garbage."""


@dataclass(frozen=True, slots=True)
class Launch:
    """A kernel with its shape and its arguments."""

    name: str
    """Of the kernel, as in the PTX."""
    grid: Index
    """CTAs along x, y, z."""
    block: Index
    """Threads of a CTA along x, y, z."""
    cluster: Index
    """CTAs of a cluster along x, y, z; (1, 1, 1) without clusters."""
    dynamic_smem: int
    """Bytes of dynamic shared memory per CTA."""
    params: tuple[bytes, ...]
    """The bytes of every parameter, in order. In a tensor map, bytes 64 to 127 are garbage."""
    ptx: str | None = None
    """Text of the PTX module that the kernel is an entry of, if it was kept."""
    regs_per_thread: int | None = None
    """At launch, from the cubin."""
    attributes: tuple[LaunchAttribute, ...] = ()

    @property
    def cooperative(self) -> bool:
        """Whether all CTAs have to be resident at once."""
        return self._flag(_COOPERATIVE)

    @property
    def programmatic(self) -> bool:
        """Whether it may begin before the kernel ahead of it in the stream has ended (PDL)."""
        return self._flag(_PROGRAMMATIC)

    @property
    def threads(self) -> int:
        """Threads of a CTA."""
        return prod(self.block)

    def _flag(self, number: int) -> bool:
        return any(
            attribute.number == number and any(attribute.value[:4]) for attribute in self.attributes
        )


def cluster_shape(attributes: tuple[LaunchAttribute, ...]) -> Index:
    """Cluster dimensions of a launch; an attribute of zeros stands for none."""
    for attribute in attributes:
        if attribute.number == _CLUSTER:
            x, y, z = (int.from_bytes(attribute.value[at : at + 4], "little") for at in (0, 4, 8))
            if (x, y, z) != (0, 0, 0):
                return x, y, z
    return 1, 1, 1


def check_launch(launch: Launch, smem_limit: int, non_portable_cluster: bool = True) -> None:
    """Refuse what the driver would refuse.

    Args:
        smem_limit: dynamic shared memory that the kernel's attribute allows, bytes.
        non_portable_cluster: whether the kernel's attribute allows clusters of more than 8 CTAs.

    Source: CUDA C++ Programming Guide, technical specifications and thread block clusters.

    Raises:
        KernelFault: the launch is invalid; the message says which number and its limit.
    """
    who = f"launch of {launch.name}"
    for what, got, allowed in (
        ("grid", launch.grid, _MAX_GRID_SIDES),
        ("block", launch.block, _MAX_CTA_SIDES),
    ):
        if not all(1 <= side <= limit for side, limit in zip(got, allowed, strict=True)):
            raise KernelFault(f"{who}: got {what} {got}, allowed: 1 to {allowed}")
    if launch.threads > _MAX_CTA_THREADS:
        raise KernelFault(
            f"{who}: got block {launch.block} = {launch.threads} threads, allowed: "
            f"{_MAX_CTA_THREADS}"
        )
    largest = _LARGEST_CLUSTER if non_portable_cluster else _PORTABLE_CLUSTER
    if min(launch.cluster) < 1 or prod(launch.cluster) > largest:
        raise KernelFault(
            f"{who}: got cluster {launch.cluster} = {prod(launch.cluster)} CTAs, allowed: 1 to "
            f"{largest}"
        )
    if any(size % step for size, step in zip(launch.grid, launch.cluster, strict=True)):
        raise KernelFault(
            f"{who}: got grid {launch.grid}, allowed: multiples of the cluster {launch.cluster}"
        )
    if launch.dynamic_smem > smem_limit:
        raise KernelFault(
            f"{who}: got {launch.dynamic_smem} bytes of dynamic shared memory, allowed: "
            f"{smem_limit}; the kernel's limit is set with max dynamic shared memory"
        )
