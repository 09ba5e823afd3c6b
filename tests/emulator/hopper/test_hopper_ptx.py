"""Every kernel is PTX that NVIDIA's assembler takes for sm_90a."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from hopper_kernel import TARGET, VERSION
from hopper_mufu import sweeps
from hopper_registry import kernels


def assembler() -> str | None:
    """``ptxas`` of a toolkit, or the one that Triton brings."""
    if found := shutil.which("ptxas"):
        return found
    triton = importlib.util.find_spec("triton")
    if triton is None or triton.origin is None:
        return None
    path = Path(triton.origin).parent / "backends" / "nvidia" / "bin" / "ptxas"
    return str(path) if path.exists() else None


@pytest.mark.slow
@pytest.mark.skipif(assembler() is None, reason="needs ptxas, of a CUDA toolkit or of Triton")
def test_the_assembler_takes_all_kernels(tmp_path: Path) -> None:
    lines = [f".version {VERSION}", f".target {TARGET}", ".address_size 64"]
    lines.append(".extern .shared .align 1024 .b8 smem[];")
    owner: dict[int, str] = {}
    everything = [*kernels().values(), *(sweep.kernel() for sweep in sweeps())]
    for number, kernel in enumerate(everything):
        entry = kernel.text[kernel.text.index(".visible .entry") :]
        for line in entry.replace(".entry kernel(", f".entry k{number}(", 1).split("\n"):
            lines.append(line)
            owner[len(lines)] = kernel.name
    source = tmp_path / "all.ptx"
    source.write_text("\n".join(lines) + "\n")
    command = [str(assembler()), "-O0", f"-arch={TARGET}", "-o", str(tmp_path / "out"), str(source)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = re.findall(r"line (\d+); error\s*: (.*)", made.stderr)
    assert [f"{owner.get(int(line))}: {text}" for line, text in errors] == []
    assert made.returncode == 0, made.stderr[:2000]
