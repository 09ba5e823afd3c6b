"""Tensor copies gone wrong: what has to be noticed, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from async_kernels import (
    COMMIT,
    FENCE,
    FEW,
    WAIT_READ,
    aligned,
    always,
    check,
    init,
    kinds,
    message,
    wait,
)
from tensor_cases import (
    MAP,
    START,
    TILE,
    Case,
    into_shared,
    load,
    loaded,
    out_of_shared,
    setting,
    store,
)

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.launch.tensormap import TensorMap, encode


@pytest.mark.parametrize("expect", [TILE.box_bytes - 16, 2 * TILE.box_bytes])
def test_expecting_the_wrong_number_of_bytes_is_a_deadlock(expect: int) -> None:
    body = init(1) + load(TILE, expect=expect) + wait("%base", 0)
    always(FindingKind.DEADLOCK, body, setting(), block=64, smem=8192)


def test_reading_before_the_phase_is_complete_is_noticed() -> None:
    body = init(1) + load(TILE) + out_of_shared(START, TILE.box_bytes) + wait("%base", 0)
    wanted = {FindingKind.NOT_COMPLETED, FindingKind.UNINITIALISED, FindingKind.RACE}
    for policy, found in kinds(body, setting(), block=64, smem=8192).items():
        assert found & wanted, policy


def test_a_store_without_a_proxy_fence_is_noticed() -> None:
    image = aligned(TILE.box_bytes, "u1")
    body = into_shared(START, TILE.box_bytes) + "bar.sync 0;" + store(TILE) + COMMIT + WAIT_READ
    always(FindingKind.PROXY, body, setting(image=image), block=64, smem=8192)


@pytest.mark.parametrize("waits", ["", "cp.async.bulk.commit_group;"])
def test_a_store_nobody_waits_for_is_noticed(waits: str) -> None:
    image = aligned(TILE.box_bytes, "u1")
    body = into_shared(START, TILE.box_bytes) + FENCE + "bar.sync 0;" + store(TILE) + waits
    always(FindingKind.RESOURCE, body, setting(image=image), block=64, smem=8192)


def test_a_store_of_loaded_data_needs_no_fence() -> None:
    """The copy's completion is what makes it visible to the next copy."""
    memory, copy = TILE.memory(), TILE.memory(1)
    body = init(1) + load(TILE) + wait("%base", 0)
    body += store(TILE).replace("map;", "to;") + COMMIT + WAIT_READ
    args = {"map": TILE.map(memory), "in": memory, "to": TILE.map(copy)}
    check(body, copy, memory, args, block=64, smem=8192)


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (replace(TILE, start=START + 64), "64 past a multiple of 128 bytes"),
        (replace(TILE, start=7168), "got bytes 7168 to 9215, allowed: 0 to 8191"),
        (replace(TILE, start=0), "over the mbarrier at byte 0"),
        (replace(TILE, dims=(64, 17)), "past the end of in"),
    ],
    ids=range(4),
)
def test_faults(case: Case, text: str) -> None:
    args = setting()
    args["map"] = case.map(args["in"])
    body = init(1) + load(replace(case, coords=(0, 1)) if case.dims[1] == 17 else case)
    always(FindingKind.FAULT, body, args, smem=8192)
    assert text in message(body, args, smem=8192)


def test_a_map_of_other_rank_or_no_map_at_all_is_a_fault() -> None:
    body = init(1) + load(Case("bf16", (64,), (64,), (0,)))
    assert "a tensor map of 2 dimensions for a copy of .1d" in message(body, setting(), smem=8192)
    args = setting(map=bytes(range(128)))
    assert "tensor map" in message(init(1) + load(TILE), args, smem=8192)
    always(FindingKind.FAULT, init(1) + load(TILE), args, smem=8192)


def test_a_map_in_shared_memory_is_a_fault() -> None:
    body = init(1) + load(TILE).replace(
        MAP, "cvta.shared.u64 %rd10, smem; add.u64 %rd10, %rd10, 64;"
    )
    always(FindingKind.FAULT, body, setting(), smem=8192)
    assert "allowed: global, constant or parameter memory" in message(body, setting(), smem=8192)


def test_a_prefetch_changes_nothing() -> None:
    prefetch = MAP + "cp.async.bulk.prefetch.tensor.2d.L2.global.tile [%rd10, {0, 0}];"
    found = kinds(prefetch, setting(), smem=8192)
    assert not any(found.values()), found


def test_rounding_to_tf32() -> None:
    """To 10 bits of mantissa: below, at and above half a unit, of even and odd numbers."""
    memory = aligned(64, "f4")
    tensor = TensorMap(memory.ctypes.data, "f32", (64,), (4,), (64,), tf32=True)
    unit = 2.0**-10
    values = [1 + (k + part) * unit for k in (0, 1) for part in (0.25, 0.5, 0.75)]
    memory[:8] = [*values, np.inf, -3.0]
    expected = np.zeros(64, np.float32)
    expected[:8] = [1, 1, 1 + unit, 1 + unit, 1 + 2 * unit, 1 + 2 * unit, np.inf, -3.0]
    body = init(1) + load(Case("f32", (64,), (64,), (0,))) + wait("%base", 0)
    body += out_of_shared(START, 256)
    check(body, aligned(64, "f4"), expected, {"map": encode(tensor), "in": memory}, smem=8192)


@pytest.mark.parametrize("mode", ["im2col", "tile::gather4"])
def test_modes_that_are_not_emulated_are_refused(mode: str) -> None:
    body = init(1) + load(TILE).replace(".tile.", f".{mode}.")
    with pytest.raises(UnsupportedInstruction, match=r"PTX line \d+.*" + mode):
        kinds(body, setting(), smem=8192)


def test_a_map_in_global_memory() -> None:
    memory = TILE.memory()
    map_bytes = aligned(128, "u1")
    map_bytes[:] = np.frombuffer(TILE.map(memory), np.uint8)
    body = init(1) + load(TILE).replace(MAP, "ld.param.u64 %rd10, [descriptor];")
    body += wait("%base", 0) + out_of_shared(START, TILE.box_bytes)
    args = {"descriptor": map_bytes, "in": memory}
    expected = loaded(TILE, memory)
    check(body, aligned(TILE.box_bytes, "u1"), expected, args, policies=FEW, block=64, smem=8192)
