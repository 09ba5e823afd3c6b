"""Kernels of one warp whose registers come from arrays and go to arrays, a lane an element."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from ptx_kernel import run_ptx

from fa4gen.emulator.emulate import Emulation

LANES = 32
FILLER = 0xEE
"""What every byte of an output holds that no lane has written."""


def run_lanes(
    body: str,
    inputs: Mapping[str, np.ndarray] | None = None,
    outputs: Mapping[str, Any] | None = None,
    memory: Mapping[str, Any] | None = None,
    before: str = "",
    **options: Any,
) -> tuple[dict[str, np.ndarray], Emulation]:
    """Run ``body`` with registers named like the inputs and outputs.

    Args:
        inputs: ``(threads,)`` arrays; the register ``x`` holds the thread's element of ``x``. An
            array of bool is a predicate; ``(threads, 2)`` of uint64 is a ``.b128``.
        outputs: Types by name; an array of them is filled with what the registers hold at the end.
        memory: More parameters: arrays are loaded as 64-bit addresses into registers of that name.
        before: Declarations at the start; ``tid`` and ``at`` are free to use in ``body``.

    Returns:
        The outputs by name, and the emulation.
    """
    inputs, outputs, memory = dict(inputs or {}), dict(outputs or {}), dict(memory or {})
    threads = options.get("block", LANES)
    arrays: dict[str, Any] = {
        f"in_{name}": value.astype(np.uint8) if value.dtype == bool else value
        for name, value in inputs.items()
    }
    for name, kind in outputs.items():
        size = 16 if kind == "b128" else np.dtype(np.uint8 if kind is bool else kind).itemsize
        arrays[f"out_{name}"] = np.full(threads * size, FILLER, np.uint8)
    lines = [".reg .b32 tid, word;", ".reg .b64 at;", ".reg .b16 half;", before]
    lines += ["mov.u32 tid, %tid.x;"]
    lines += [_declare(name, value.dtype, value.ndim) for name, value in inputs.items()]
    lines += [_declare(name, kind) for name, kind in outputs.items() if name not in inputs]
    for name, value in memory.items():
        if isinstance(value, np.ndarray):
            lines += [f".reg .b64 {name};", f"ld.param.u64 {name}, [mem_{name}];"]
    for name, value in inputs.items():
        lines += _transfer("ld", f"in_{name}", name, value.dtype, value.ndim)
    lines.append(body)
    for name, kind in outputs.items():
        lines += _transfer("st", f"out_{name}", name, kind, 1)
    lines.append("ret;")
    arguments = arrays | {
        (f"mem_{name}" if isinstance(value, np.ndarray) else name): value
        for name, value in memory.items()
    }
    run = run_ptx("\n".join(lines), arguments, **options)
    results = {
        name: arrays[f"out_{name}"].view(np.uint64).reshape(threads, 2)
        if kind == "b128"
        else arrays[f"out_{name}"].view(np.uint8 if kind is bool else kind)
        for name, kind in outputs.items()
    }
    return results, run


def _declare(name: str, kind: Any, dimensions: int = 1) -> str:
    if kind in (bool, np.bool_):
        return f".reg .pred {name};"
    if dimensions > 1 or kind == "b128":
        return f".reg .b128 {name};"
    return f".reg .b{np.dtype(kind).itemsize * 8} {name};"


def _transfer(opcode: str, parameter: str, name: str, kind: Any, dimensions: int) -> list[str]:
    wide = dimensions > 1 or kind == "b128"
    size = 16 if wide else np.dtype(np.uint8 if kind is bool else kind).itemsize
    lines = [
        f"{{ .reg .b64 base; ld.param.u64 base, [{parameter}];",
        f"mad.wide.u32 at, tid, {size}, base; }}",
    ]
    register, bits = name, size * 8
    if kind in (bool, np.bool_):
        register = "half"
        if opcode == "st":
            lines.append(f"selp.b16 half, 1, 0, {name};")
    operands = f"{register}, [at]" if opcode == "ld" else f"[at], {register}"
    lines.append(f"{opcode}.global.b{bits} {operands};")
    if kind in (bool, np.bool_) and opcode == "ld":
        lines.append(f"setp.ne.b16 {name}, half, 0;")
    return lines


def kinds(run: Emulation) -> list[str]:
    """The kinds of everything that was found."""
    return [found.kind.value for found in run.findings]


def fault(run: Emulation) -> str:
    """The text of the error that ended the run.

    Raises:
        AssertionError: none did.
    """
    texts = [str(found) for found in run.findings if found.kind.value == "fault"]
    if len(texts) != 1:
        raise AssertionError(f"got {len(texts)} faults in {run.findings}")
    return texts[0]
