"""Launches of FlashAttention-4's forward: compiled from its own package, called as it calls it."""

from __future__ import annotations

import sys
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from fa4gen.emulator.launch import capture
from fa4gen.emulator.launch.tensormap import decode, encode
from fa4gen.ptx import parse

sys.path.append(str(Path(__file__).parents[2] / "peers"))

from peer_kernels import PeerKernel, compile_peers
from peer_suite import FA4

pytestmark = pytest.mark.slow

SHAPES = {  # grid, block, cluster
    "fa4-sm90-d128-dense": ((2, 1, 1), (384, 1, 1), (1, 1, 1)),
    "fa4-sm90-d128-gqa": ((2, 2, 1), (384, 1, 1), (1, 1, 1)),  # (tiles of packed heads, KV heads)
    "fa4-sm100-d128-2cta": ((2, 1, 1), (512, 1, 1), (2, 1, 1)),
    "fa4-sm100-d128-clc": ((1, 2, 1), (512, 1, 1), (1, 1, 1)),
}


@pytest.fixture(scope="module")
def compiled() -> dict[str, PeerKernel]:
    return dict(zip(SHAPES, compile_peers([FA4[name] for name in SHAPES]), strict=True))


@pytest.mark.parametrize("name", SHAPES)
def test_launch_of_the_forward(compiled: dict[str, PeerKernel], name: str) -> None:
    kernel = compiled[name]
    tensors = {
        spec.name: np.zeros(spec.shape, getattr(ml_dtypes, spec.dtype, spec.dtype))
        for spec in kernel.tensors
    }
    host = kernel.host()
    (launch,) = capture(host, *kernel.bind(tensors))
    assert (launch.grid, launch.block, launch.cluster) == SHAPES[name]
    assert launch.name in kernel.kernel_names
    assert 0 < launch.dynamic_smem <= host.device.smem_optin_bytes
    assert launch.ptx is not None
    entry = parse(launch.ptx).entry(launch.name)
    assert entry.reqntid == launch.block
    assert [len(raw) for raw in launch.params] == [param.size for param in entry.params]

    maps = [raw for raw in launch.params if len(raw) == 128]
    assert len(maps) == 4
    for raw, which in zip(maps, ("q", "k", "v", "out"), strict=True):
        made, tensor = decode(raw), tensors[which]
        assert encode(made)[:64] == raw[:64]
        assert (made.address, made.dtype, made.swizzle) == (tensor.ctypes.data, "bf16", 128)
        # Packed heads split the head dimension in two, so compare what is addressed.
        assert made.span_bytes == tensor.nbytes
        assert np.prod(made.dims) == tensor.size
        assert made.box[0] * 2 == made.swizzle
