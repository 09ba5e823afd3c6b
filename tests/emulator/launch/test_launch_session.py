"""Whole host functions: policies compared, inputs refused, timelines and coverage."""

from __future__ import annotations

import json
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fa4gen.compile import emulation
from fa4gen.core.errors import InputError, PtxError
from fa4gen.emulator import Options, Report, Timeline, coverage, run, session
from fa4gen.emulator.findings import FindingKind
from fa4gen.emulator.launch import CompiledHost


@pytest.fixture(scope="module")
def copy(kernels: ModuleType) -> CompiledHost:
    """``tma_copy(source, target)`` of 64 x 128 float16."""
    shape = np.zeros((64, 128), np.float16)
    return emulation.compile_function(kernels.tma_copy, shape, shape.copy(), target="sm_90a")


def tensors() -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(0)
    source = rng.standard_normal((64, 128)).astype(np.float16)
    return source, np.full((64, 128), np.nan, np.float16)


def without(host: CompiledHost, line: str, instead: str = "") -> CompiledHost:
    """``host`` with every line of PTX that contains ``line`` left out or replaced."""
    ptx = {
        name: "\n".join(instead if line in x else x for x in text.splitlines())
        for name, text in host.ptx.items()
    }
    (name,) = ptx
    assert ptx[name] != host.ptx[name].rstrip("\n")
    return CompiledHost(host.object_bytes, host.function_name, ptx, host.device, host.target)


def kinds(report: Report) -> set[FindingKind]:
    return {found.kind for found in report.findings}


def test_a_copy_is_right_under_every_policy(copy: CompiledHost) -> None:
    source, target = tensors()
    report = run(copy, source, target, policies=["eager", "lazy", "seed:1", "seed:2"])
    assert report.findings == ()
    assert np.array_equal(source, target)
    assert [r.policy for r in report.runs] == ["eager", "lazy", "seed:1", "seed:2"]


def test_kernels_see_what_those_before_them_wrote(chain: CompiledHost) -> None:
    import cuda.bindings.driver as cuda

    x, y = np.arange(300, dtype=np.float32), np.zeros(300, np.float32)
    report = run(chain, x, y, 0.5, cuda.CUstream(0))
    assert report.ok
    assert [len(r.launches) for r in report.runs] == [3, 3, 3]
    assert np.isfinite(y).all()
    assert y.any()


def test_a_store_nobody_waits_for_is_noticed(copy: CompiledHost) -> None:
    source, target = tensors()
    report = run(without(copy, "cp.async.bulk.wait_group"), source, target)
    assert FindingKind.RESOURCE in kinds(report)


def test_a_load_nobody_waits_for_is_noticed_and_shows(copy: CompiledHost) -> None:
    """Right by luck under the eager policy, and reported all the same."""
    broken = without(copy, "mbarrier.try_wait", "setp.eq.b32 P1, 0, 0;")
    source, target = tensors()
    eager = run(broken, source, target, policies=["eager"])
    assert np.array_equal(source, target)
    assert FindingKind.NOT_COMPLETED in kinds(eager)
    source, target = tensors()
    both = run(broken, source, target, policies=["eager", "lazy"])
    assert FindingKind.DIVERGED in kinds(both)
    (found,) = both.differences
    assert "differ between the policies eager and lazy" in found.message


def test_every_run_starts_from_the_same_memory(copy: CompiledHost) -> None:
    """Without the restoring, the second policy would find the first one's results."""
    source, target = tensors()
    broken = without(copy, "cp.async.bulk.tensor.2d.global")
    report = run(broken, source, target, policies=["eager", "lazy"])
    assert np.isnan(target).all()
    assert report.differences == ()


def test_no_policy_and_too_much_memory(copy: CompiledHost, monkeypatch: pytest.MonkeyPatch) -> None:
    source, target = tensors()
    with pytest.raises(InputError, match="policies: got none"):
        run(copy, source, target, policies=[])
    monkeypatch.setattr(session, "MAX_TENSOR_BYTES", 1000)
    with pytest.raises(InputError, match="tensors: got 32768 bytes, allowed: 1000; emulate a sm"):
        run(copy, source, target)


def test_another_architecture(copy: CompiledHost) -> None:
    ptx = {name: text.replace("sm_90a", "sm_80") for name, text in copy.ptx.items()}
    old = CompiledHost(copy.object_bytes, copy.function_name, ptx, copy.device, copy.target)
    with pytest.raises(PtxError, match="got sm_80, emulated"):
        run(old, *tensors())


def test_a_timeline_has_a_row_per_warp_and_arrows(copy: CompiledHost, tmp_path: Path) -> None:
    timeline = Timeline()
    options = Options(observer=timeline.observer())
    assert run(copy, *tensors(), policies=["lazy"], options=options).ok
    path = tmp_path / "trace.json"
    timeline.write(path)
    events = json.loads(path.read_text())["traceEvents"]
    rows = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert rows == {"warp 0", "copies under way"}
    assert {e["pid"] for e in events} == {0, 1, 2, 3}
    slices = [e for e in events if e["ph"] == "X"]
    assert all(e["dur"] >= 1 and e["ts"] >= 0 for e in slices)
    loads = [e for e in slices if "tma load" in e["name"]]
    assert len(loads) == 4
    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert len(starts) == 4
    assert starts.keys() == ends.keys()
    assert all(starts[i]["ts"] <= ends[i]["ts"] for i in starts)


def test_a_full_timeline_says_what_it_left_out(copy: CompiledHost, tmp_path: Path) -> None:
    timeline = Timeline(max_events=5)
    run(copy, *tensors(), policies=["eager"], options=Options(observer=timeline.observer()))
    timeline.write(tmp_path / "trace.json")
    found = json.loads((tmp_path / "trace.json").read_text())
    assert found["otherData"]["dropped events"] == timeline.dropped > 0


def test_coverage(copy: CompiledHost) -> None:
    report = run(copy, *tensors(), policies=["eager"])
    found = coverage(report.runs[0].launches)
    uses = {use.opcode: use for use in found.opcodes}
    (load,) = (use for opcode, use in uses.items() if ".global.tile.mbarrier" in opcode)
    assert (load.pipe, load.isa[:6], load.executed) == ("tma", "9.7.9.", 4)
    assert sum(use.executed for use in found.opcodes) == report.executed
    assert found.instructions == sum(use.written for use in found.opcodes)
    assert len(found.missed) == sum(use.written - use.reached for use in found.opcodes)
    with pytest.raises(ValueError, match="got runs of 0 kernels"):
        coverage([])
