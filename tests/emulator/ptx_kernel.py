"""Small kernels in PTX, run on NumPy arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from fa4gen.emulator.emulate import Emulation, Options, emulate
from fa4gen.emulator.machine import GridShape
from fa4gen.emulator.memory import Buffer


def run_ptx(  # noqa: PLR0913 - a keyword for each number of a launch
    body: str,
    arguments: Mapping[str, Any] | None = None,
    *,
    block: int = 32,
    grid: int = 1,
    cluster: int = 1,
    smem: int = 0,
    target: str = "sm_100a",
    regs_per_thread: int | None = None,
    **options: Any,
) -> Emulation:
    """Run a kernel with ``body``, without its braces.

    Args:
        arguments: Parameters by name: an array is a ``.u64`` address, an int a ``.u32``, a float
            an ``.f32``, bytes a ``.align 64 .b8 name[len]``.
        smem: Bytes of dynamic shared memory, which the kernel sees as ``smem``, aligned to 1024.
        options: Of :class:`fa4gen.emulator.emulate.Options`.
    """
    declared, params, buffers = [], [], []
    for name, value in (arguments or {}).items():
        if isinstance(value, np.ndarray):
            address = value.__array_interface__["data"][0]
            buffers.append(Buffer(address, value.nbytes, name))
            declared.append(f".param .u64 {name}")
            params.append(address.to_bytes(8, "little"))
        elif isinstance(value, bytes):
            declared.append(f".param .align 64 .b8 {name}[{len(value)}]")
            params.append(value)
        elif isinstance(value, float):
            declared.append(f".param .f32 {name}")
            params.append(np.float32(value).tobytes())
        else:
            declared.append(f".param .u32 {name}")
            params.append((value & 0xFFFFFFFF).to_bytes(4, "little"))
    text = f"""
.version 8.8
.target {target}
.address_size 64
.extern .shared .align 1024 .b8 smem[];
.visible .entry kernel({", ".join(declared)})
.reqntid {block}, 1, 1
{{
{body}
}}
"""
    shape = GridShape((grid, 1, 1), (block, 1, 1), (cluster, 1, 1), smem, regs_per_thread)
    return emulate(text, shape, params, buffers, Options(**options))
