"""Compiling and loading in one process; run in a child, so that this one stays light."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from fa4gen.compile import Artifact, CompilePool

LOAD = """
import json, os, sys
os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.modules["torch"] = None  # TVM-FFI would import it; not needed here
from pathlib import Path
from fa4gen.compile import Artifact, load
from fa4gen.core.errors import CompileError
from fa4gen.core.evaluation import ResourceUse

def artifact(path):
    return Artifact("id", Path(path), Path(path), ResourceUse(0, 0, 0, 0), 0.0)

import numpy
said = {}
function = load(artifact(sys.argv[1]))
said["callable"] = callable(function)
try:
    function(numpy.zeros(8, numpy.float16), numpy.zeros(8, numpy.float16), 1.0)
except Exception as error:
    said["on the CPU"] = str(error)
for name, path in (("damaged", sys.argv[2]), ("gone", sys.argv[2] + "x")):
    try:
        load(artifact(path))
    except CompileError as error:
        said[name] = str(error)
print(json.dumps(said))
"""

COMPILE = """
import os, sys
os.environ.pop("CUTE_DSL_ARCH", None)
os.environ["CUDA_VISIBLE_DEVICES"] = ""
sys.modules["torch"] = None  # TVM-FFI would import it; not needed here
from dataclasses import replace
from pathlib import Path
from fa4gen.codegen import GeneratedKernel
from fa4gen.compile import ArtifactCache, compile_kernel
from fa4gen.core.config import KernelConfig
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import KernelSignature

source = Path(sys.argv[1]).read_text()
cache = ArtifactCache(sys.argv[2])
for target in ("sm_90a", "sm_100a", "sm_90a"):
    generated = GeneratedKernel(
        source, "kernel_module", KernelSignature(DType.BF16, 64, 64, False, 1), KernelConfig(),
        "any", target, "hash",
    )
    artifact = compile_kernel(generated, cache)
    assert cache.get(artifact.artifact_id) == artifact
    print(artifact.artifact_id, [line for line in artifact.ptx().splitlines() if ".target" in line])
assert "kernel_module" not in sys.modules
"""


def run(code: str, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *arguments],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def artifact(pool: CompilePool, kernel) -> Artifact:
    return pool.submit(kernel()).result()


def test_artifact_loads_as_a_function_without_a_gpu(artifact: Artifact, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.o"
    damaged.write_bytes(artifact.object_path.read_bytes()[:3000])
    said = json.loads(run(LOAD, str(artifact.object_path), str(damaged)).splitlines()[-1])
    assert said["callable"]
    assert "scale(x: Tensor([n0], bfloat16), y" in said["on the CPU"]
    assert "cannot be loaded" in said["damaged"]
    assert "cannot be loaded" in said["gone"]


@pytest.mark.slow
def test_compile_kernel_in_this_process_for_two_targets(tmp_path: Path, kernel) -> None:
    path = tmp_path / "kernel.py"
    path.write_text(kernel().source)
    lines = run(COMPILE, str(path), str(tmp_path / "cache")).splitlines()
    assert [line.partition(" ")[2] for line in lines] == [
        "['.target sm_90a']",
        "['.target sm_100a']",
        "['.target sm_90a']",
    ]
    assert lines[0] == lines[2] != lines[1]
