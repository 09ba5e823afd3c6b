"""What a host function may ask about the GPU it launches on."""

from __future__ import annotations

from fa4gen.core.errors import CaptureFailed
from fa4gen.ptx.host import Device

RESERVED_SMEM_BYTES = 1024
"""Shared memory of every CTA that the system keeps for itself.

Source: CUDA C++ Programming Guide, technical specifications (compute capability 8.0 and newer), and
the size of ``.nv.shared.<kernel>`` in cubins of kernels without static shared memory.
"""

_LIMITS = {1: 1024, 2: 1024, 3: 1024, 4: 64, 5: 2**31 - 1, 6: 65535, 7: 65535, 8: 48 << 10, 10: 32}
_MULTIPROCESSORS, _MAJOR, _MINOR, _RESERVED_SMEM, _SMEM_OPTIN = 16, 75, 76, 111, 97


def device_attribute(device: Device, number: int) -> int:
    """The value of a ``cudaDeviceAttr``.

    1 to 8 are the limits on threads per CTA, its sides, the grid's sides and shared memory without
    opt-in, 10 the warp size, 16 the SM count, 75 and 76 the compute capability, 97 shared memory
    with opt-in, 111 what the system keeps of it.

    Source: CUDA runtime API, ``cudaDeviceAttr``; limits: CUDA C++ Programming Guide, technical
    specifications, the same for compute capability 9.0 and 10.x.

    Raises:
        CaptureFailed: an attribute that no host function has asked for so far.
    """
    answers = {
        **_LIMITS,
        _MULTIPROCESSORS: device.sm_count,
        _MAJOR: device.compute_capability[0],
        _MINOR: device.compute_capability[1],
        _RESERVED_SMEM: RESERVED_SMEM_BYTES,
        _SMEM_OPTIN: device.smem_optin_bytes,
    }
    if number not in answers:
        raise CaptureFailed(
            f"host function: got a question for device attribute {number}, answered: "
            f"{', '.join(map(str, sorted(answers)))}; the number is a cudaDeviceAttr"
        )
    return answers[number]
