"""PTX for the tests of the parser: a file round a body, and NVIDIA's assembler if there is one."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

from fa4gen.ptx import Entry, Instruction, Module, Operand, parse

HEADER = ".version 8.3\n.target sm_90a\n.address_size 64\n"

REGISTERS = """\
.reg .pred %p<4>;
.reg .b16 %rs<9>;
.reg .b32 %r<40>;
.reg .b64 %rd<9>;
.reg .b128 %big;
"""


def wrap(body: str, *, params: str = ".param .b64 P_0", module: str = "") -> str:
    """A file with one entry ``k`` whose body starts on line 5, plus the lines of ``module``."""
    return f"{HEADER}{module}.visible .entry k({params}) {{\n{body}\n}}\n"


def entry(body: str, *, params: str = ".param .b64 P_0", module: str = "") -> Entry:
    (found,) = parse(wrap(body, params=params, module=module)).entries
    return found


def only(statement: str, declared: str = REGISTERS) -> Instruction:
    """The one instruction of a body, whose operands come from ``REGISTERS``."""
    (found,) = entry(declared + statement).instructions
    return found


def operands(text: str, opcode: str = "op.b32") -> tuple[Operand, ...]:
    """What an instruction with these operands holds."""
    return only(f"{opcode} {text};").operands


def without_lines(module: Module) -> Module:
    """``module`` with every line number 0."""

    def clean(each: Instruction) -> Instruction:
        origin = replace(each.origin, first_line=0) if each.origin else None
        return replace(each, line=0, origin=origin)

    entries = (
        replace(e, line=0, instructions=tuple(map(clean, e.instructions))) for e in module.entries
    )
    return replace(module, entries=tuple(entries))


def find_ptxas() -> str | None:
    """NVIDIA's assembler: of a CUDA toolkit, or the one inside Triton."""
    if found := shutil.which("ptxas"):
        return found
    spec = importlib.util.find_spec("triton")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        inside = Path(folder, "backends", "nvidia", "bin", "ptxas")
        if inside.exists():
            return str(inside)
    return None


def assemble(ptxas: str, text: str, folder: Path, target: str = "sm_90a") -> bytes:
    """The cubin that ``ptxas`` makes of ``text``; the same file name each time, as it is kept."""
    source, cubin = folder / "kernel.ptx", folder / "kernel.cubin"
    source.write_text(text)
    command = [ptxas, f"-arch={target}", "-O1", str(source), "-o", str(cubin)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}\n{text}"
    return cubin.read_bytes()
