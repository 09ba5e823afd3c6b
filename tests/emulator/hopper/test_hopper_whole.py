"""Whole kernels for sm_90a on the emulator: all bits that an H200 gave.

What is emulated is the recorded PTX with the recorded launch, so nothing is compiled here, and
neither a new compiler nor a changed template makes the check void. That the suite still compiles
to that PTX is another test, which is skipped, saying so, if it does not.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
import subprocess
from collections import Counter
from functools import cache
from pathlib import Path

import hopper_whole_recording as recording
import numpy as np
import pytest
from hopper_contraction import contracted
from hopper_kernel import Array, Arrays
from hopper_recording import heads
from hopper_whole_build import build
from hopper_whole_cases import COMPILED, OWN, UNFUSED, Case, cases, own_kernel
from hopper_whole_gpu import LAUNCHES, Order, carry_out
from hopper_whole_launch import as_run, described, emulated, inputs_digest, normalised, ptx_digest
from hopper_whole_record import EMULATED, inputs_of
from record_whole import MAX_BYTES, pack

from fa4gen.feasibility import canonicalise
from fa4gen.hardware import load_arch

RECORDED, TEXTS = recording.read_all()
RUNS = [(name, run) for name, entry in RECORDED.items() for run in entry["runs"]]
AGAIN = "run tests/emulator/hopper/record_whole.py on a Hopper GPU"


@cache
def inputs(name: str) -> Arrays:
    return inputs_of(name, RECORDED[name])


@cache
def run_recorded(name: str, run: str, policy: str = "eager") -> tuple[Arrays, list[str]]:
    text = as_run(TEXTS[name], run)
    return emulated(text, RECORDED[name]["launch"], inputs(name), policy)


@pytest.mark.parametrize(("name", "run"), RUNS)
def test_outputs_are_those_of_the_gpu(name: str, run: str) -> None:
    entry, case = RECORDED[name], cases()[name]
    assert inputs_digest(inputs(name)) == entry["inputs"], f"its inputs have changed: {AGAIN}"
    assert ptx_digest(TEXTS[name]) == entry["ptx"]
    assert entry["unstable"].get(run) == [], "the GPU gave other bits at another launch"
    after, findings = run_recorded(name, run)
    assert findings == []
    for output, kept in entry["runs"][run].items():
        how, tolerance = recording.compare(kept, after[output]), case.tolerances.get(run)
        if how is None:
            continue
        assert tolerance is not None, f"{name} {run}: {output}: {how}"
        assert how.ulps <= tolerance.ulps, f"{output}: {how}; {tolerance}"
        assert how.share <= tolerance.share, f"{output}: {how}; {tolerance}"


@pytest.mark.parametrize("name", [name for name, run in RUNS if run == UNFUSED])
def test_whether_products_are_fused_can_be_seen(name: str) -> None:
    """If it could not, equal bits would say nothing of what ptxas does."""
    fused, plain = (run_recorded(name, run)[0]["lse"] for run in (COMPILED, UNFUSED))
    assert recording.difference(fused, plain) is not None


@pytest.mark.parametrize("name", [name for name, run in RUNS if run == COMPILED])
def test_only_kernels_with_two_runs_have_products_to_fuse(name: str) -> None:
    assert (contracted(TEXTS[name]) != TEXTS[name]) == (UNFUSED in cases()[name].runs)


def test_all_cases_are_recorded() -> None:
    if not RECORDED:
        pytest.skip(f"nothing is recorded: {AGAIN}")
    wanted = {(name, run) for name, case in cases().items() for run in case.runs}
    assert set(RUNS) == wanted, AGAIN
    assert [name for name, entry in RECORDED.items() if entry["failed"]] == []
    for head in heads(recording.FOLDER).values():
        assert head["gpu"].startswith("NVIDIA H"), head
        assert set(head) >= {"driver", "date", "nvidia-cutlass-dsl"}


def test_recordings_stay_small() -> None:
    assert sum(path.stat().st_size for path in recording.FOLDER.glob("*")) <= MAX_BYTES


@pytest.mark.slow
@pytest.mark.parametrize("name", cases())
def test_the_suite_still_compiles_to_what_was_recorded(name: str) -> None:
    if name not in RECORDED:
        pytest.skip("not recorded")
    kernel, entry = build(name), RECORDED[name]
    if (now := ptx_digest(kernel.ptx)) != entry["ptx"]:
        pytest.skip(
            f"PTX differs: {name} compiles to {now} here, {entry['ptx']} ran on the GPU, and only "
            f"that is compared with it. For today's: {AGAIN}"
        )
    launch = described(kernel, inputs(name))
    for fact in ("grid", "block", "cluster", "smem", "tensors"):
        assert launch[fact] == entry["launch"][fact]


@pytest.mark.parametrize("case", OWN, ids=lambda case: case.name)
def test_configurations_are_as_written(case: Case) -> None:
    """No knob of theirs is one that the problem makes meaningless."""
    assert case.problem is not None
    assert canonicalise(case.problem.signature, case.config, load_arch("sm90")) == case.config


def entry(*lines: str) -> str:
    body = "\n".join(f"\t{line}" for line in lines)
    return f".visible .entry made()\n{{\n\t.reg .b32 \t%r<9>;\n{body}\n\tret;\n}}"


MUL = "mul.f32 \t%r1, %r2, %r3;"


@pytest.mark.parametrize(
    ("lines", "wanted"),
    [
        ((MUL, "add.f32 \t%r4, %r1, %r5;"), ["fma.rn.f32 %r4, %r2, %r3, %r5"]),
        ((MUL, "add.f32 \t%r4, %r5, %r1;"), ["fma.rn.f32 %r4, %r2, %r3, %r5"]),
        (
            (MUL, "sub.f32 \t%r4, %r1, %r5;"),
            ["neg.f32 %negated0, %r5", "fma.rn.f32 %r4, %r2, %r3, %negated0"],
        ),
        (
            (MUL, "sub.f32 \t%r4, %r5, %r1;"),
            ["neg.f32 %negated0, %r2", "fma.rn.f32 %r4, %negated0, %r3, %r5"],
        ),
        (
            (MUL, "mul.f32 \t%r6, %r7, %r8;", "add.f32 \t%r4, %r1, %r6;"),
            ["mul.f32 %r6, %r7, %r8", "fma.rn.f32 %r4, %r2, %r3, %r6"],
        ),
    ],
)
def test_products_that_are_fused(lines: tuple[str, ...], wanted: list[str]) -> None:
    text = normalised(contracted(entry(*lines)))
    found = re.findall(r"^((?:mul|add|sub|neg|fma)\b.*);$", text, re.MULTILINE)
    assert found == wanted
    assert ("%negated<1>" in text) == ("%negated0" in text)


@pytest.mark.parametrize(
    "lines",
    [
        (MUL, "add.f32 \t%r4, %r1, %r5;", "mov.b32 \t%r6, %r1;"),
        (MUL, "add.f32 \t%r4, %r1, %r1;"),
        (MUL, "add.rn.f32 \t%r4, %r1, %r5;"),
        ("mul.rn.f32 \t%r1, %r2, %r3;", "add.f32 \t%r4, %r1, %r5;"),
        (MUL, "$L__BB0_1:", "add.f32 \t%r4, %r1, %r5;"),
        (MUL, "mov.b32 \t%r2, %r6;", "add.f32 \t%r4, %r1, %r5;"),
        (MUL, "add.f32 \t%r4, %r6, %r5;"),
    ],
)
def test_products_that_are_not_fused(lines: tuple[str, ...]) -> None:
    assert contracted(entry(*lines)) == entry(*lines)


def tools() -> tuple[Path, Path] | None:
    """``ptxas`` and ``nvdisasm``, of a toolkit or those that Triton brings."""
    triton = importlib.util.find_spec("triton")
    beside = Path(triton.origin or "").parent / "backends" / "nvidia" / "bin" if triton else None
    for folder in (Path(shutil.which("nvdisasm") or "").parent, beside):
        if folder and (folder / "ptxas").exists() and (folder / "nvdisasm").exists():
            return folder / "ptxas", folder / "nvdisasm"
    return None


def arithmetic(ptx: str, fuse: bool, folder: Path) -> Counter[str]:
    """How often the machine code has which instruction of float arithmetic."""
    found = tools()
    assert found is not None
    ptxas, nvdisasm = found
    source, binary = folder / "kernel.ptx", folder / "kernel.cubin"
    # An older assembler takes the text if it does not know that version.
    source.write_text(re.sub(r"^\.version.*$", ".version 8.6", ptx, flags=re.MULTILINE))
    command = [ptxas, f"--fmad={str(fuse).lower()}", "-arch=sm_90a", "-o", binary, source]
    subprocess.run(command, check=True, capture_output=True)
    shown = [nvdisasm, "-c", binary]
    made = subprocess.run(shown, check=True, capture_output=True, text=True).stdout
    return Counter(re.findall(r"\b(FFMA|FMUL|FADD)\b", made))


@pytest.mark.slow
@pytest.mark.skipif(tools() is None, reason="needs ptxas and nvdisasm, as Triton has them")
@pytest.mark.parametrize("name", [name for name, case in cases().items() if UNFUSED in case.runs])
def test_ptxas_fuses_just_these_products(name: str, tmp_path: Path) -> None:
    ptx = build(name).ptx
    fused = arithmetic(ptx, True, tmp_path)
    assert fused["FFMA"] > 0
    assert arithmetic(contracted(ptx), False, tmp_path) == fused
    assert arithmetic(ptx, False, tmp_path) != fused


def values(dtype: str = "float32") -> Array:
    return np.linspace(-3, 3, 300 * 64).astype(dtype).reshape(300, 64)


@pytest.mark.parametrize("shape", [(300, 64), (10, 8)])
@pytest.mark.parametrize("equal", [False, True])
def test_one_other_bit_is_seen_and_told(shape: tuple[int, int], equal: bool) -> None:
    value = values()[: shape[0], : shape[1]]
    kept = json.loads(json.dumps(recording.keep(value, equal)))
    assert recording.compare(kept, value.copy()) is None
    other = value.copy()
    other.view(np.uint32)[7, 5] ^= 2
    found = recording.compare(kept, other)
    assert found is not None
    if "rows" in kept:
        assert found.rows == (7,)
        assert "1 of 300 rows differ (7" in str(found)
    else:
        assert (found.wrong, found.ulps, found.elements) == (1, 2, value.size)


def test_distances_are_in_ulp() -> None:
    one = np.array([1.0, -0.0, 2.0], np.float32)
    other = np.array([np.nextafter(np.float32(1), np.float32(0)), 0.0, 2.0], np.float32)
    found = recording.difference(one, other)
    assert found is not None
    assert (found.wrong, found.ulps) == (2, 1)
    lost = recording.difference(one, np.array([1.0, np.nan, 2.0], np.float32))
    assert lost is not None
    assert lost.ulps == 1 << 32


def test_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    entries = {"own-a": {"x": 1}, "fa4-b": {"y": 2}}
    texts = {"own-a": "add.f32 \t%r12, %r7, %f3;\nmov %r13, %tid.x;\n.reg .b32 %r<99>;"}
    size = recording.write_all(tmp_path, {"gpu": "G"}, entries, texts)
    assert recording.read_all(tmp_path) == (entries, texts)
    assert size == sum(path.stat().st_size for path in tmp_path.iterdir())
    with pytest.raises(ValueError, match="own-a: got PTX"):
        recording.write_all(tmp_path, {}, entries, {"own-a": "mov %r007, %r1;"})


@pytest.mark.parametrize("stable", [True, False])
def test_launches_are_compared_with_each_other(
    stable: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a function in the place of a kernel, and tensors of the CPU."""
    import torch

    case = OWN[3]
    kernel = own_kernel(case, b"", ".visible .entry made()")
    tensors, calls = case.inputs(kernel.tensors), []

    def function(q: torch.Tensor, k: object, v: object, out: torch.Tensor, *rest: object) -> None:
        assert out.isnan().all(), "outputs are full of NaN before each launch"
        calls.append(rest[1:])
        out.copy_(q if stable else q + len(calls))

    monkeypatch.setattr("fa4gen.compile.loader.load", lambda artifact: function)
    monkeypatch.setattr("torch.cuda.synchronize", lambda: None)
    path = Order(kernel, tensors).write(tmp_path / "order.pickle")
    found = carry_out(str(path), device="cpu")
    assert calls == [(0.125, 2)] * LAUNCHES
    assert found.unstable == (() if stable else ("out",))
    assert (found.outputs["out"].tobytes() == tensors["q"].tobytes()) == stable
    assert np.isnan(found.outputs["lse"]).all()


def test_what_the_emulator_gave_is_no_recording(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "head.json").write_text(json.dumps({"gpu": EMULATED}))
    assert pack(tmp_path, recording.FOLDER) == 1
    assert "allowed: what a GPU gave" in capsys.readouterr().out
