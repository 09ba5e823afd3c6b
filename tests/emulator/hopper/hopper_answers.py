"""The open questions about Hopper that recordings answer, in words, each with its evidence."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

import hopper_recording as recording
from hopper_emulated import run_emulated
from hopper_kernel import Kernel
from hopper_maps import driver_cases
from hopper_recording import Entry, unpacked
from hopper_registry import kernels

from fa4gen.emulator.launch.tensormap import encode

Lines = Iterator[str]


@dataclass(frozen=True)
class Answer:
    """What is so if recordings of some kernels agree with the emulator.

    Attributes:
        question: A number of section 9 of the notes on PTX that the emulator was written from, or
            what it is about.
        text: The answer.
        kernels: Regular expression of their whole names.
    """

    question: str
    text: str
    kernels: str

    def evidence(self, recorded: dict[str, Entry]) -> str:
        """How many kernels bear it out; empty if none is recorded."""
        mine = [k for name, k in kernels().items() if re.fullmatch(self.kernels, name)]
        known = [k for k in mine if k.name in recorded]
        agreeing = [k for k in known if _agrees(k, recorded[k.name])]
        missing = f", {len(mine) - len(known)} are not recorded" if len(known) < len(mine) else ""
        return f"{len(agreeing)} of {len(mine)} kernels agree{missing}" if known else ""


ANSWERS = (
    Answer(
        "1",
        "wgmma subtracts a descriptor's base offset from the number of the 128-byte line that the "
        "swizzle looks at",
        "wgmma/probe-base-offset-.*",
    ),
    Answer("2", "elect.sync elects the lowest lane of its mask", "lanes/elect"),
    Answer(
        "3",
        "complete_tx counts the full box of a tensor copy, wherever it lies",
        "tensor/complete-tx-out-of-bounds",
    ),
    Answer(
        "4",
        "f32 arithmetic and conversions to f16, bf16 and fp8 give the canonical NaN; conversions "
        "to tf32 give 0x7FFFE000, with .rna what is left of the payload; f64 keeps sign and "
        "payload",
        "float/nan-.*|convert/f32-to-.*",
    ),
    Answer(
        "5",
        "tensormap.replace puts each field where the decoder looks for it",
        "tensor/replace-.*",
    ),
    Answer(
        "5",
        "a box dimension b with element stride s has ceil(b / s) elements; dimension 0 has no "
        "stride, whatever the map says",
        "tensor/(load|store)-element-strides.*",
    ),
    Answer(
        "5",
        "a fill with NaN is 0x7FF7 in every 16 bits; a load as tf32 rounds to nearest, ties to "
        "even; one as f32.ftz changes nothing",
        "tensor/load-(nan|as)-.*",
    ),
    Answer(
        "11",
        "3 x 168 registers become 40 + 2 x 232 by setmaxnreg",
        "barriers/setmaxnreg",
    ),
    Answer(
        "tensor copies",
        "the first coordinate has to be a multiple of 16 bytes, and no coordinate of a store or "
        "reduction may be negative: error 715 otherwise",
        "tensor/(load|store)-(unaligned|before).*|tensor/reduce-before",
    ),
    Answer(
        "tensor copies",
        "rows of a box that is narrower than its swizzle are as far apart as the swizzle spans",
        "tensor/(load|store)-narrow.*",
    ),
    Answer(
        "tensor copies",
        "a store writes the last 16 bytes of a row of the tensor whole, loads stop at the element",
        "tensor/(load|store)-.*(swizzle.*|[1-5]d)",
    ),
    Answer(
        "tensor copies",
        "reductions of f32 keep subnormals, those of f32.ftz flush them",
        "tensor/reduce-add-f32.*|bulk/reduce-f32",
    ),
    Answer(
        "matrix products",
        "mma.sync and wgmma add up as MMA-Sim found; a zero is +0; mma.sync of 8-bit floats is two "
        "products of f16, and C is added in the end",
        "(matrix/mma|wgmma/sums)-.*",
    ),
    Answer(
        "arithmetic",
        "with .ftz a result is flushed if it is subnormal when rounded as if exponents had no "
        "lower bound",
        "float/(tiny|mul|fma|div)-.*",
    ),
    Answer(
        "arithmetic",
        "neg and abs of a NaN give what an addition gives",
        "float/(signs-f32|minmax-.*|packed-.*)",
    ),
    Answer(
        "mbarriers",
        "a state's upper half has phase, pending count and tx-count; its lower half is left over",
        "barriers/(phases|counts|drops|bytes|no-complete|largest)",
    ),
)


def _agrees(kernel: Kernel, kept: Entry) -> bool:
    """Whether emulator and recording are one."""
    if kept["fingerprint"] != kernel.fingerprint():
        return False
    if kernel.faults or "error" in kept:
        return kept.get("error", "").endswith(f"error {kernel.faults}")
    return recording.check(kernel, kept, run_emulated(kernel).outputs) == []


def answers(recorded: dict[str, Entry]) -> Lines:
    """A line for each answer that is recorded, and for facts that the emulator makes no use of."""
    for answer in ANSWERS:
        if evidence := answer.evidence(recorded):
            yield f"question {answer.question}: {answer.text}: {evidence}"
    for part in (facts, driver_maps, sweeps):
        yield from part(recorded)


def _whole(recorded: dict[str, Entry], name: str, output: str) -> list[int]:
    """A recorded output, if it was kept."""
    if name not in recorded or "error" in recorded[name] or name not in kernels():
        return []
    if recorded[name]["fingerprint"] != kernels()[name].fingerprint():
        return []
    value = unpacked(kernels()[name], recorded[name], output)
    return [] if value is None else [int(v) for v in value.reshape(-1)]


def facts(recorded: dict[str, Entry]) -> Lines:
    """What the ISA leaves open, as it was seen."""
    images = _whole(recorded, "barriers/memory-image", "out")
    if images:
        yield "mbarrier images: " + " ".join(f"{v:016x}" for v in images)
    divided = _whole(recorded, "integer/divide-undefined", "d")
    if divided:
        inputs = kernels()["integer/divide-undefined"].inputs
        pairs = list(zip(inputs["a"].tolist(), inputs["b"].tolist(), strict=True))
        for row, form in enumerate(("div.u32", "div.s32", "rem.u32", "rem.s32")):
            got = divided[row * len(pairs) :][:8]
            shown = (f"{a:x}/{b:x}={r:x}" for (a, b), r in zip(pairs, got, strict=False))
            yield f"{form}: {', '.join(shown)}"
    for name, output in (("memory/static-and-dynamic", "out"), ("cluster/addresses", "windows")):
        values = _whole(recorded, name, output)
        if values:
            yield f"{name}: {[f'{v:x}' for v in values[:6]]}"
    old = _whole(recorded, "barriers/test-wait-state", "old")
    if old:
        yield f"test_wait on states of 3, 2 and 1 phases ago: {old}"


def driver_maps(recorded: dict[str, Entry]) -> Lines:
    """Question 5: where the driver's maps are others than ours."""
    for case in driver_cases():
        made = recorded.get(f"driver-map/{case.name}")
        if made is None:
            continue
        if "error" in made:
            yield f"map {case.name}: refused: {made['error']}"
            continue
        theirs = made["words"]
        raw = encode(case.map)
        ours = [f"{int.from_bytes(raw[i : i + 8], 'little'):016x}" for i in range(0, 64, 8)]
        other = [
            f"w{i} {t} not {o}"
            for i, (t, o) in enumerate(zip(theirs, ours, strict=False))
            if t != o
        ]
        tail = [f"w{i + 8} {t}" for i, t in enumerate(theirs[8:]) if int(t, 16)]
        yield f"map {case.name}: {', '.join(other + tail) or 'as ours'}"


def sweeps(recorded: dict[str, Entry]) -> Lines:
    """Errors of the approximate functions (question 10, as far as Hopper goes)."""
    for name, made in recorded.items():
        if name.startswith("sweep/") and "error" not in made:
            yield f"{name}: {made['statistics']}"
