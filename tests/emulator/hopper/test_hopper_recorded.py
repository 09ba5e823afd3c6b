"""Recordings that are no kernels of the emulator: driver's maps, vector files, sweeps, answers."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import hopper_forms
import hopper_mufu
import hopper_recording as recording
import numpy as np
import pytest
from hopper_answers import ANSWERS, answers
from hopper_barriers import ARRIVE, EXPECT, IMAGE_STEPS
from hopper_emulated import run_emulated
from hopper_maps import driver_cases, software_words
from hopper_recording import unpacked
from hopper_registry import kernels

from fa4gen.emulator.barriers import MBarrier
from fa4gen.emulator.launch.tensormap import decode, encode

PAGE = Path(__file__).resolve().parents[3] / "docs" / "emulator-hopper.md"
RECORDED = recording.read()
CASES = {f"driver-map/{case.name}": case for case in driver_cases()}
UNKNOWN = 1 << 1
"""Bit of w1 that CuTe-DSL sets and the driver does not; copies do not look at it."""
PART = 1 << 19
"""Results at once."""
LARGE = 1 << 21
"""Bit of w1 that tells the size of the tensor; copies do not look at it."""


@pytest.mark.parametrize("name", [n for n, case in CASES.items() if case.modelled])
def test_the_drivers_maps_are_ours(name: str) -> None:
    case, kept = CASES[name], RECORDED.get(name, {"error": "not recorded"})
    assert decode(encode(case.map)) == case.map
    if "error" in kept:
        return
    assert [int(word, 16) for word in kept["words"][8:]] == [*software_words(case.map), *[0] * 6]
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
    """Where the GPU gave something else, the file, and so the emulator, has to say the same now,
    or be as close as the bound of an approximate instruction."""
    forms = {form.text: form for form in hopper_forms.read(name)}
    assert any(form.runs for form in forms.values())
    kept = RECORDED.get(f"forms/{name}", {"differ": []})
    assert "error" not in kept
    wrong = []
    for text, sources, got in kept["differ"]:
        if text not in forms:
            continue
        wanted = dict(case.split(":") for case in forms[text].cases).get(sources)
        if wanted not in (None, got) and not hopper_forms.in_bounds(text, str(wanted), got):
            wrong.append(f"{text} of {sources}: the GPU gives {got}, the file says {wanted}")
    assert wrong == []


@pytest.mark.parametrize("sweep", list(hopper_mufu.sweeps()), ids=lambda s: s.name)
def test_errors_are_within_the_bounds_of_the_model(sweep: hopper_mufu.Sweep) -> None:
    """All results, as they were counted, and those that were kept."""
    assert sweep.count % hopper_mufu.BLOCK == 0
    assert len(sweep.arguments(np.arange(100))) == 100
    kept = RECORDED.get(f"sweep/{sweep.name}")
    if kept is None:
        return
    assert "error" not in kept
    statistics = kept["statistics"]
    assert statistics["lost"] == 0
    assert statistics.get("beyond_bound", 0) == 0
    at = sweep.kept_places(len(kept["values"]))
    values = np.array([int(v, 16) for v in kept["values"]], f"uint{sweep.bits}")
    assert sweep.beyond(values, at) == 0


@pytest.mark.parametrize(
    "sweep", [s for s in hopper_mufu.sweeps() if s.known], ids=lambda s: s.name
)
def test_all_results_of_known_functions_are_the_gpus(sweep: hopper_mufu.Sweep) -> None:
    kept = RECORDED.get(f"sweep/{sweep.name}")
    if kept is None:
        pytest.skip("not recorded")
    with np.errstate(all="ignore"):
        made = [
            sweep.codes(sweep.arguments(np.arange(first, min(first + PART, sweep.count))))
            for first in range(0, sweep.count, PART)
        ]
    assert recording.digest(np.concatenate(made)) == kept["sha256"]


@pytest.mark.parametrize(
    ("name", "rows"), [("float/mufu", 8), ("float/mufu-special", 2), ("float/div-approx", 4)]
)
def test_kernels_of_known_functions_agree_bit_for_bit(name: str, rows: int) -> None:
    """Recorded as kernels whose results need only be near."""
    kernel = kernels()[name]
    if name not in RECORDED:
        pytest.skip("not recorded")
    theirs, ours = unpacked(kernel, RECORDED[name], "d"), run_emulated(kernel).outputs["d"]
    assert theirs is not None
    assert (theirs == ours)[:rows].all()


def test_memory_of_mbarriers_is_as_the_emulator_says() -> None:
    name = "barriers/memory-image"
    if name not in RECORDED:
        pytest.skip("not recorded")
    theirs = unpacked(kernels()[name], RECORDED[name], "out")
    assert theirs is not None
    assert [f"{int(v):016x}" for v in theirs] == [f"{v:016x}" for v in mbarrier_images()]


def mbarrier_images() -> list[int]:
    """What :meth:`MBarrier.image` makes of each step of the kernel."""
    found = [_image(count, count) for count in (1, 2, 32, 1000, (1 << 20) - 1)]
    phase, pending, tx = 0, 5, 0
    found.append(_image(5, pending))
    for step in IMAGE_STEPS:
        if step == ARRIVE:
            pending -= 1
        else:
            tx += 64 if step == EXPECT else -64
        if pending == tx == 0:
            phase, pending = phase + 1, 5
        found.append(_image(5, pending, tx, phase))
    return found


def _image(expected: int, pending: int, tx: int = 0, phase: int = 0) -> int:
    state = SimpleNamespace(expected=expected, pending=pending, phase=phase)
    return MBarrier.image(cast(MBarrier, state), tx)


def test_statistics_of_the_right_results_are_zero() -> None:
    sweep = hopper_mufu.Sweep(
        "rcp-made", "rcp.approx.f32 %d, %a;", np.reciprocal, 0x3F800000, 4096, 2048
    )
    x = sweep.arguments(np.arange(2048)).view(np.float32)
    right = (1 / x.astype(np.float64)).astype(np.float32)
    found = sweep.statistics(right.view(np.uint32))
    assert found["max_ulp"] <= 0.5
    assert found["rounded_right"] == 1
    off = np.nextafter(right, np.float32(4)).view(np.uint32)
    assert 0.5 < sweep.statistics(off)["max_ulp"] <= 1.5
    made = sweep.codes(x.view(np.uint32))
    assert sweep.statistics(made + 1)["beyond_bound"] == 0
    assert sweep.statistics(made + 2)["beyond_bound"] == 2048


def test_the_page_of_answers_has_them_all() -> None:
    page = " ".join(PAGE.read_text().split())
    missing = [each.text for each in ANSWERS if each.text not in page]
    assert missing == []


def test_recordings_bear_the_answers_out() -> None:
    if not RECORDED:
        pytest.skip("nothing is recorded")
    for each in ANSWERS:
        found = each.evidence(RECORDED)
        agree, of = (int(word) for word in re.findall(r"(\d+) of (\d+)", found)[0])
        left = int((re.findall(r", (\d+) are not", found) or ["0"])[0])
        assert agree > 0, each.text
        assert agree + left == of, f"{each.text}: {found}"


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
