"""Reading a cubin: real ones from the pool, and broken bytes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from fa4gen.compile import CompilePool
from fa4gen.compile.cubin import embedded_cubin, kernel_facts
from fa4gen.core.errors import CompileError

IN_MEMORY = """
    scratch = cute.make_rmem_tensor((64,), Float32)
    for i in range(cute.size(x)):
        scratch[i] = Float32(index * i)
    if index < cute.size(x):
        staged[tidx] = scratch[index].to(DTYPE)
"""


def test_resources_of_a_real_object(pool: CompilePool, kernel) -> None:
    artifact = pool.submit(kernel()).result()
    (facts,) = kernel_facts(embedded_cubin(artifact.object_path.read_bytes()))
    assert facts.name in artifact.ptx()
    assert facts.regs_per_thread == artifact.resources.regs_per_thread
    assert 0 < facts.regs_per_thread <= 255
    assert facts.code_bytes % 128 == 0  # ptxas pads code to whole 128-byte lines
    assert facts.frame_bytes == 0


def test_stack_frame_is_seen(pool: CompilePool, kernel) -> None:
    generated = kernel()
    marker = "    cute.arch.sync_threads()\n"
    source = generated.source.replace(marker, IN_MEMORY + marker)
    artifact = pool.submit(replace(generated, source=source)).result()
    # 64 floats; ptxas -v says "32 registers" and "272 bytes stack frame" of this very kernel.
    assert 64 * 4 <= artifact.resources.spill_bytes < 2 * 64 * 4


def test_cut_short_is_an_error_not_a_crash(pool: CompilePool, kernel) -> None:
    host_object = pool.submit(kernel()).result().object_path.read_bytes()
    cubin = embedded_cubin(host_object)
    whole = kernel_facts(cubin)
    refused = 0
    for size in range(0, len(cubin), 61):  # what is missing may be nothing we read
        try:
            assert kernel_facts(cubin[:size]) == whole
        except CompileError:
            refused += 1
    assert refused > len(cubin) // 61 // 2
    start = host_object.index(cubin[:64])
    for size in (0, start - 60, start - 1, start + 2):
        with pytest.raises(CompileError):
            embedded_cubin(host_object[:size])


def test_bytes_that_are_no_object() -> None:
    with pytest.raises(CompileError, match="no fat binary"):
        embedded_cubin(b"\x7fELF" + b"\0" * 200)
    with pytest.raises(CompileError, match="first bytes"):
        kernel_facts(b"not an ELF")
