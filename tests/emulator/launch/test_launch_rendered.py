"""The launch of fa4gen's own sm_90a forward, every parameter of it."""

from __future__ import annotations

import gzip
import math
import struct
from dataclasses import replace
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from fa4gen.codegen import render
from fa4gen.compile import ArtifactCache, CompiledKernel, emulation
from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.errors import CaptureFailed
from fa4gen.core.evaluation import ResourceUse
from fa4gen.core.problem import KernelSignature
from fa4gen.emulator.launch import CompiledHost, TensorMap, capture
from fa4gen.emulator.launch.tensormap import decode, encode
from fa4gen.hardware import load_arch
from fa4gen.ptx import parse

BATCH, SEQLEN_Q, SEQLEN_K, HEADS_Q, HEADS_KV, HEAD_DIM = 2, 300, 520, 6, 3, 128
TILE_M, TILE_N = 128, 128
SCALE = 0.125


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> CompiledHost:
    """A dense GQA forward, one tile per CTA."""
    signature = KernelSignature(DType.BF16, HEAD_DIM, HEAD_DIM, False, HEADS_Q // HEADS_KV)
    config = KernelConfig.from_dict(
        {"tile_m": TILE_M, "tile_n": TILE_N, "scheduler": "lpt", "pack_gqa": False}
    )
    path = tmp_path_factory.mktemp("rendered") / "kernel.py"
    path.write_text(render(signature, config, load_arch("sm90")).source)
    return emulation.compile_file(path, "sm_90a")


def tensors() -> tuple[np.ndarray, ...]:
    def bf16(seqlen: int, heads: int) -> np.ndarray:
        return np.zeros((BATCH, seqlen, heads, HEAD_DIM), ml_dtypes.bfloat16)

    q, k, v = bf16(SEQLEN_Q, HEADS_Q), bf16(SEQLEN_K, HEADS_KV), bf16(SEQLEN_K, HEADS_KV)
    return q, k, v, np.zeros_like(q), np.zeros((BATCH, HEADS_Q, SEQLEN_Q), np.float32)


def test_every_parameter(host: CompiledHost) -> None:
    q, k, v, out, lse = tensors()
    (launch,) = capture(host, q, k, v, out, lse, SCALE, 132)
    tiles = math.ceil(SEQLEN_Q / TILE_M) * HEADS_Q * BATCH
    assert launch.grid == (tiles, 1, 1)
    assert launch.cluster == (1, 1, 1)
    assert launch.ptx is not None
    entry = parse(launch.ptx).entry(launch.name)
    assert launch.block == entry.reqntid == (384, 1, 1)
    assert [len(raw) for raw in launch.params] == [param.size for param in entry.params]
    assert launch.dynamic_smem >= (TILE_M + 2 * 2 * TILE_N) * HEAD_DIM * 2

    *counted, _, places_per_section, _, heads = launch.params
    *pairs, statistics, scale, m_blocks, slices, section, rounds, left = counted
    for i, (tensor, rows) in enumerate(zip((q, k, v, out), (64, 128, 128, 64), strict=True)):
        batch, seqlen, num_heads, head_dim = tensor.shape
        made = decode(pairs[2 * i])
        assert made == TensorMap(
            address=tensor.ctypes.data,
            dtype="bf16",
            dims=(head_dim, seqlen, num_heads, batch),
            strides=(2, *(tensor.strides[axis] for axis in (1, 2, 0))),
            box=(64, rows, 1, 1),
            swizzle=128,
        )
        assert encode(made)[:64] == pairs[2 * i][:64]
        assert struct.unpack("<3i", pairs[2 * i + 1]) == (seqlen, num_heads, batch)
    pointer, *shape = struct.unpack_from("<Q3i", statistics)
    assert (pointer, tuple(shape)) == (lse.ctypes.data, lse.shape)
    assert struct.unpack_from("<2q", statistics, 24) == (lse.strides[0] // 4, lse.strides[1] // 4)
    assert struct.unpack("<f", scale)[0] == pytest.approx(SCALE * math.log2(math.e), rel=1e-6)
    counts = (m_blocks, slices, section, rounds, left)
    numbers = [struct.unpack("<i", raw)[0] for raw in counts]
    assert numbers[:2] == [math.ceil(SEQLEN_Q / TILE_M), HEADS_Q * BATCH]
    assert numbers[2] > 0
    assert numbers[3:] == [1, 0], "a CTA for each tile"
    # Divisors come twice: as factors, which only the DSL knows, and as they are.
    divisors = [struct.unpack("<i", raw)[0] for raw in (places_per_section, heads)]
    assert divisors == [numbers[0] * numbers[2], HEADS_Q]


def test_strided_tensors_come_through(host: CompiledHost) -> None:
    q, _, v, out, lse = tensors()
    wide = np.zeros((BATCH, SEQLEN_K, HEADS_KV, 2 * HEAD_DIM), ml_dtypes.bfloat16)
    (launch,) = capture(host, q, wide[..., :HEAD_DIM], v, out, lse, SCALE, 132)
    made = decode(launch.params[2])
    assert made.strides == (2, *(wide.strides[axis] for axis in (1, 2, 0)))
    assert made.address == wide.ctypes.data


def test_the_checks_of_the_launch_code_are_heard(host: CompiledHost) -> None:
    q, k, v, out, lse = tensors()
    with pytest.raises(CaptureFailed, match=r"fa4gen_fwd: .*Mismatched Tensor on argument #0"):
        capture(host, q.astype(np.float32), k, v, out, lse, SCALE, 132)
    with pytest.raises(CaptureFailed, match=r"Mismatched mV.shape.1. on argument #2"):
        capture(host, q, k, v[:, :-1], out, lse, SCALE, 132)


def test_an_artifact_gives_the_same_launch(host: CompiledHost, tmp_path: Path) -> None:
    (ptx,) = host.ptx.values()
    resources = ResourceUse(regs_per_thread=168, spill_bytes=0, smem_bytes=0, code_bytes=0)
    kernel = CompiledKernel(host.object_bytes, gzip.compress(ptx.encode()), resources, 1.0)
    artifact = ArtifactCache(tmp_path).put("0" * 64, kernel)
    device = emulation.device_of("sm_90a", sm_count=3)
    assert emulation.host_of_artifact(artifact, "sm_90a") == host
    assert emulation.host_of_kernel(kernel, "sm_90a", device) == replace(host, device=device)
