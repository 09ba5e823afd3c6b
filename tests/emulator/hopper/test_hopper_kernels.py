"""Every kernel on the emulator: no findings, the independent rule's results, the GPU's recording.

``python tests/emulator/hopper/record.py --missing tests/vectors/hopper`` lists the kernels that
have no recording yet.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import hopper_recording as recording
import numpy as np
import pytest
from hopper_emulated import Emulated, run_emulated
from hopper_kernel import Agreement, Kernel, Output
from hopper_registry import kernels

from fa4gen.numerics.approx import Bound

RECORDED = recording.read()
EMULATED = [name for name, kernel in kernels().items() if not kernel.only_gpu]
ASYNCHRONOUS = ("tensor", "bulk", "barriers", "cluster")


@cache
def eager(name: str) -> Emulated:
    return run_emulated(kernels()[name])


@pytest.mark.parametrize("name", EMULATED)
def test_kernel(name: str) -> None:
    kernel, found = kernels()[name], eager(name)
    if kernel.faults:
        assert [each.partition(":")[0] for each in found.findings] == ["fault"]
        assert str(kernel.faults) in RECORDED.get(name, {"error": str(kernel.faults)})["error"]
        return
    assert found.findings == []
    for output, wanted in kernel.wanted().items():
        np.testing.assert_array_equal(found.outputs[output], wanted, f"{name}: {output}")
    if name in RECORDED:
        assert disagreements(kernel, found.outputs) == []


def disagreements(kernel: Kernel, outputs: dict[str, np.ndarray]) -> list[str]:
    kept = RECORDED[kernel.name]
    if kept["fingerprint"] != kernel.fingerprint():
        return ["the kernel has changed since it was recorded: run record.py on a Hopper GPU"]
    return [] if "error" in kept else recording.check(kernel, kept, outputs)


@pytest.mark.parametrize(
    "name",
    [n for n in EMULATED if n.partition("/")[0] in ASYNCHRONOUS and not kernels()[n].faults],
)
def test_whatever_completes_when(name: str) -> None:
    """Nothing depends on when copies complete and which warp goes first."""
    lazy = run_emulated(kernels()[name], "lazy")
    assert lazy.findings == []
    for output, value in eager(name).outputs.items():
        np.testing.assert_array_equal(lazy.outputs[output], value, output)


@pytest.mark.parametrize("name", ["wgmma/steps-k128", "wgmma/n64", "wgmma/registers-b-mn"])
def test_exact_sums_need_no_model(name: str) -> None:
    """Whole numbers: the truncating sums of tensor cores give what float64 does."""
    kernel = kernels()[name]
    plain = run_emulated(kernel, tensor_core="float64")
    np.testing.assert_array_equal(plain.outputs["d"], kernel.wanted()["d"])


def test_only_kernels_have_recordings() -> None:
    """And those that a GPU could not run say so in the recording; what is missing is printed."""
    others = ("driver-map/", "forms/", "sweep/")
    unknown = [name for name in RECORDED if name not in kernels() and not name.startswith(others)]
    assert unknown == []
    missing = [name for name in kernels() if name not in RECORDED]
    print(f"{len(missing)} of {len(kernels())} kernels have no recording: {', '.join(missing)}")


def test_waits_are_bounded() -> None:
    """No loop of a kernel can go on for ever: each counts, and so ends by itself."""
    for name, kernel in kernels().items():
        waits = kernel.body.count("try_wait")
        assert kernel.body.count("add.u32 %tries, %tries, 1; setp.lt.u32 %more") == waits, name
        assert waits == 0 or kernel.waits, name


@pytest.mark.parametrize("name", [n for n, k in kernels().items() if k.launch.max_registers])
def test_registers_are_given_before_they_are_taken(name: str) -> None:
    """setmaxnreg.inc blocks until registers are free, which must not depend on the compiler."""
    launch = kernels()[name].launch
    groups = launch.block // 128
    assert 40 + 232 * (groups - 1) == launch.max_registers * groups


def kernel(outputs: dict[str, Output]) -> Kernel:
    return Kernel("family/made", "a kernel that nothing runs", "", outputs, why="a test")


def test_a_recording_holds_what_was_given() -> None:
    value = np.arange(2500, dtype=np.uint32) * np.uint32(0x9E3779B1)
    made = kernel({"d": Output((2500,), "uint32")})
    for emulated in (None, {"d": value}):
        kept = recording.entry(made, {"d": value}, emulated)
        assert ("data" in kept["outputs"]["d"]) == (emulated is None)
        assert recording.check(made, kept, {"d": value}) == []
        other = value.copy()
        other[2499] ^= 1
        assert len(recording.check(made, kept, {"d": other})) >= 1


def near(bound: Bound, value: int, got: int) -> list[str]:
    output = Output((1, 1), "uint32", Agreement.NEAR, bounds=(bound,))
    made = kernel({"d": output})
    kept = recording.entry(made, {"d": np.array([[value]], np.uint32)}, None)
    return recording.check(made, kept, {"d": np.array([[got]], np.uint32)})


@pytest.mark.parametrize(
    ("got", "agrees"),
    [
        (0x3F800002, True), (0x3F7FFFFE, True), (0x3F800003, False), (0xBF800000, False),
        (0x7F800000, False), (0x00000000, False), (0x7FFFFFFF, False),
    ],
)  # fmt: skip
def test_near_is_a_bound_in_ulp(got: int, agrees: bool) -> None:
    assert (near(Bound(ulp=2), 0x3F800000, got) == []) == agrees


@pytest.mark.parametrize(
    ("bound", "agrees"),
    [
        (Bound(relative=2.0**-20), False), (Bound(relative=2.0**-19), True),
        (Bound(absolute=2.0**-20), False), (Bound(absolute=2.0**-18), True),
    ],
)  # fmt: skip
def test_near_is_a_part_or_a_difference(bound: Bound, agrees: bool) -> None:
    assert (near(bound, 0x40000010, 0x40000000) == []) == agrees


@pytest.mark.parametrize("special", [0x7F800000, 0xFF800000, 0x7FFFFFFF])
def test_near_meets_special_values(special: int) -> None:
    bound = Bound(ulp=2, relative=1.0, absolute=1.0)
    assert near(bound, special, special) == []
    assert near(bound, special, special - 1) != []


def test_files_are_read_as_they_were_written(tmp_path: Path) -> None:
    recording.write(tmp_path, "family", {"gpu": "G"}, {"family/b": {"x": 1}, "family/a": {"y": 2}})
    assert recording.read(tmp_path) == {"family/a": {"y": 2}, "family/b": {"x": 1}}
    assert recording.heads(tmp_path) == {"family": {"gpu": "G"}}


def test_a_kernel_that_changes_has_another_fingerprint() -> None:
    one = kernel({"d": Output((1,), "uint32")})
    two = kernel({"d": Output((2,), "uint32")})
    assert one.fingerprint() != two.fingerprint()
