"""A launch as data, and its emulation: PTX, shape, and parameters with the tensors left open."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from hopper_contraction import contracted
from hopper_emulated import address, aligned
from hopper_kernel import Arrays
from hopper_whole_cases import COMPILED
from peer_kernels import PeerKernel

from fa4gen.emulator.emulate import Options, emulate
from fa4gen.emulator.launch import TENSOR_MAP_BYTES, capture
from fa4gen.emulator.machine import GridShape
from fa4gen.emulator.memory import Buffer

_MAP_DEFINED = 64
"""Bytes of a tensor map that mean something."""
_POINTER = 8
Described = dict[str, Any]


def described(kernel: PeerKernel, tensors: Arrays) -> Described:
    """The one launch of a host function, as JSON.

    ``params`` has the bytes of each parameter in hexadecimal, with zeros where the address of a
    tensor belongs; ``tensors`` has these places: parameter, byte, name.
    """
    mine = {name: aligned(value) for name, value in tensors.items()}
    (launch,) = capture(kernel.host(), *kernel.bind(mine))
    owners = {address(value).to_bytes(_POINTER, "little"): name for name, value in mine.items()}
    params, places = [], []
    for number, raw in enumerate(launch.params):
        kept = bytearray(raw)
        if len(raw) == TENSOR_MAP_BYTES:
            kept[_MAP_DEFINED:] = bytes(TENSOR_MAP_BYTES - _MAP_DEFINED)
        for at in range(0, len(raw) - _POINTER + 1, _POINTER):
            owner = owners.get(raw[at : at + _POINTER])
            if owner is not None:
                kept[at : at + _POINTER] = bytes(_POINTER)
                places.append([number, at, owner])
        params.append(kept.hex())
    return {
        "grid": list(launch.grid),
        "block": list(launch.block),
        "cluster": list(launch.cluster),
        "smem": launch.dynamic_smem,
        "registers": launch.regs_per_thread,
        "params": params,
        "tensors": places,
    }


def as_run(ptx: str, run: str) -> str:
    """The text that says what a GPU computes in a run."""
    return contracted(ptx) if run == COMPILED else ptx


def emulated(
    ptx: str, launch: Mapping[str, Any], tensors: Arrays, policy: str = "eager"
) -> tuple[Arrays, list[str]]:
    """Emulate a launch, with the sums of tensor cores.

    Returns:
        All tensors afterwards, and the findings.
    """
    mine = {name: aligned(value) for name, value in tensors.items()}
    params = [bytearray.fromhex(raw) for raw in launch["params"]]
    for number, at, name in launch["tensors"]:
        params[number][at : at + _POINTER] = address(mine[name]).to_bytes(_POINTER, "little")
    grid, block, cluster = (tuple(launch[each]) for each in ("grid", "block", "cluster"))
    shape = GridShape(grid, block, cluster, launch["smem"], launch["registers"])
    memory = [Buffer(address(value), value.nbytes, name) for name, value in mine.items()]
    options = Options(policy=policy, tensor_core="fused")
    found = emulate(ptx, shape, [bytes(p) for p in params], memory, options)
    return mine, [str(each) for each in found.findings]


def normalised(ptx: str) -> str:
    """PTX without what says nothing of what it does: comments, version, names of kernels."""
    text = re.sub(r"//[^\n]*|^\.version[^\n]*", "", ptx, flags=re.MULTILINE)
    for number, name in enumerate(re.findall(r"\.entry\s+([\w$]+)", text)):
        text = re.sub(rf"(?<![\w$]){re.escape(name)}", f"kernel{number}", text)
    lines = (" ".join(line.split()) for line in text.split("\n"))
    return "\n".join(line for line in lines if line)


def ptx_digest(ptx: str) -> str:
    """Of the normalised text."""
    return hashlib.sha256(normalised(ptx).encode()).hexdigest()[:24]


def inputs_digest(tensors: Arrays) -> str:
    """Of all tensors of a call as they are before it."""
    made = hashlib.sha256()
    for name in sorted(tensors):
        made.update(name.encode() + tensors[name].tobytes())
    return made.hexdigest()[:24]
