"""Recordings that are no kernels of the emulator: driver's maps, vector files, sweeps, answers."""

from __future__ import annotations

import json

import hopper_forms
import hopper_mufu
import hopper_recording as recording
import numpy as np
import pytest
from hopper_answers import BASE_OFFSETS, _addressed, answers
from hopper_emulated import run_emulated
from hopper_maps import driver_cases
from hopper_registry import kernels

from fa4gen.emulator.launch.tensormap import decode, encode

RECORDED = recording.read()
CASES = {f"driver-map/{case.name}": case for case in driver_cases()}
UNKNOWN = 1 << 1
"""Bit of w1 that CuTe-DSL sets and the driver may not; copies do not look at it."""
LARGE = 1 << 21
"""Bit of w1 that tells the size of the tensor; copies do not look at it."""


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.modelled])
def test_the_drivers_maps_are_ours(name: str) -> None:
    case, kept = CASES[name], RECORDED.get(name, {"error": "not recorded"})
    assert decode(encode(case.map)) == case.map
    if "error" in kept:
        return
    words = [int(word, 16) for word in kept["words"][:8]]
    raw = encode(case.map)
    ours = [int.from_bytes(raw[i : i + 8], "little") for i in range(0, 64, 8)]
    ignored = [0, UNKNOWN | LARGE, *[0] * 6]
    assert [w & ~i for w, i in zip(words, ignored, strict=True)] == [
        w & ~i for w, i in zip(ours, ignored, strict=True)
    ]
    assert decode(b"".join(w.to_bytes(8, "little") for w in words) + bytes(64)) == case.map


@pytest.mark.parametrize("name", hopper_forms.files())
def test_vector_files_hold_on_the_gpu(name: str) -> None:
    """Where the GPU gave something else, the file, and so the emulator, has to say the same now."""
    forms = {form.text: form for form in hopper_forms.read(name)}
    assert any(form.runs for form in forms.values())
    kept = RECORDED.get(f"forms/{name}", {"differ": []})
    assert "error" not in kept
    wrong = []
    for text, sources, got in kept["differ"]:
        if ".approx" in text or ".full" in text or text not in forms:
            continue
        wanted = dict(case.split(":") for case in forms[text].cases).get(sources)
        if wanted is not None and wanted != got:
            wrong.append(f"{text} of {sources}: the GPU gives {got}, the file says {wanted}")
    assert wrong == []


BOUNDS = {
    # PTX ISA 9.7.3.13 to .22, in ulp, or relative; sin and cos are bounded in [-2 pi, 2 pi] only.
    "ex2": ("max_ulp", 2.0),
    "rcp": ("max_ulp", 1.0),
    "rsqrt": ("max_relative", 2.0**-22.9),
    "sqrt": ("max_relative", 2.0**-23),
    "tanh": ("max_relative", 2.0**-11),
}


@pytest.mark.parametrize("sweep", list(hopper_mufu.sweeps()), ids=lambda s: s.name)
def test_errors_are_within_the_isas_bounds(sweep: hopper_mufu.Sweep) -> None:
    assert sweep.count % hopper_mufu.BLOCK == 0
    assert len(sweep.arguments(np.arange(100))) == 100
    kept = RECORDED.get(f"sweep/{sweep.name}")
    if kept is None:
        return
    assert "error" not in kept
    statistics = kept["statistics"]
    function = sweep.text.partition(".")[0]
    if function in BOUNDS and not sweep.half:
        key, bound = BOUNDS[function]
        assert statistics[key] <= bound * 1.0001
    if sweep.name in ("sin-small", "cos-small"):
        assert statistics["max_absolute"] <= 2.0**-20.5
    assert statistics["lost"] == 0


def test_statistics_of_the_right_results_are_zero() -> None:
    sweep = hopper_mufu.Sweep(
        "made", "rcp.approx.f32 %d, %a;", np.reciprocal, 0x3F800000, 4096, 2048
    )
    x = sweep.arguments(np.arange(2048)).view(np.float32)
    right = (1 / x.astype(np.float64)).astype(np.float32)
    found = sweep.statistics(right.view(np.uint32))
    assert found["max_ulp"] <= 0.5
    assert found["rounded_right"] == 1
    off = np.nextafter(right, np.float32(4)).view(np.uint32)
    assert 0.5 < sweep.statistics(off)["max_ulp"] <= 1.5


@pytest.mark.parametrize("major", ["k", "mn"])
def test_the_hypotheses_of_question_1_agree_without_a_base_offset(major: str) -> None:
    """They are then the rule that the emulator has."""
    kernel = kernels()[f"wgmma/probe-{major}"]
    places = run_emulated(kernel).outputs["places"]
    for rule in BASE_OFFSETS.values():
        for at, word in enumerate(kernel.inputs["words"].tolist()):
            np.testing.assert_array_equal(places[at], _addressed(word, major, rule))


def test_answers_can_be_told_of_whatever_is_recorded() -> None:
    assert list(answers({})) == []
    for line in answers(RECORDED):
        assert line


@pytest.mark.parametrize("name", ["floats/add", "compare/setp", "convert/cvt"])
def test_forms_of_vector_files_hold_their_cases(name: str) -> None:
    forms = hopper_forms.read(name)
    text, owner = hopper_forms.module(forms[:3])
    assert text.count(".visible .entry") == 3
    assert set(owner.values()) == {0, 1, 2}
    form = forms[0]
    results = [[int(w, 16) for w in case.split(":")[1].split()] for case in form.cases]
    got = np.array(results, np.uint64)
    assert form.differences(got) == []
    got[0, 0] ^= np.uint64(1)
    assert len(form.differences(got)) == 1


def test_files_stay_small() -> None:
    size = sum(path.stat().st_size for path in recording.FOLDER.glob("*.json"))
    assert size < 400_000
    for path in recording.FOLDER.glob("*.json"):
        assert set(json.loads(path.read_text())["head"]) >= {"gpu", "driver", "date"}
