"""Kernels on the emulator."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hopper_kernel import Array, Arrays, Kernel, MapOf

from fa4gen.emulator.emulate import Emulation, Options, emulate
from fa4gen.emulator.launch.tensormap import encode
from fa4gen.emulator.machine import GridShape
from fa4gen.emulator.memory import Buffer

ALIGNMENT = 256
"""Bytes; of every buffer, as of device memory."""


@dataclass(frozen=True)
class Emulated:
    """What came of one run."""

    outputs: Arrays
    emulation: Emulation

    @property
    def findings(self) -> list[str]:
        """Everything the emulator has against the kernel."""
        return [str(found) for found in self.emulation.findings]


def run_emulated(kernel: Kernel, policy: str = "eager", tensor_core: str = "fused") -> Emulated:
    """Run a kernel; MMAs add up as tensor cores are known to unless told otherwise."""
    buffers = {name: aligned(value) for name, value in kernel.inputs.items()}
    buffers |= {name: aligned(output.fresh()) for name, output in kernel.outputs.items()}
    params = []
    for name, value in (*kernel.arguments.items(), *kernel.outputs.items()):
        if isinstance(value, MapOf):
            params.append(encode(value.at(address(buffers[value.buffer]))))
        elif isinstance(value, int):
            params.append((value & 0xFFFFFFFF).to_bytes(4, "little"))
        else:
            params.append(address(buffers[name]).to_bytes(8, "little"))
    launch = kernel.launch
    shape = GridShape(
        launch.grid, (launch.block, 1, 1), launch.cluster, launch.smem, launch.max_registers or None
    )
    memory = [Buffer(address(value), value.nbytes, name) for name, value in buffers.items()]
    options = Options(policy=policy, tensor_core=tensor_core, max_instructions=20_000_000)
    run = emulate(kernel.text, shape, params, memory, options)
    return Emulated({name: buffers[name] for name in kernel.outputs}, run)


def aligned(value: Array) -> Array:
    """A copy at an aligned address."""
    raw = np.zeros(value.nbytes + ALIGNMENT, np.uint8)
    shift = -raw.__array_interface__["data"][0] % ALIGNMENT
    made = raw[shift : shift + value.nbytes].view(value.dtype).reshape(value.shape)
    made[...] = value
    return made


def address(value: Array) -> int:
    """Where an array begins."""
    return int(value.__array_interface__["data"][0])
