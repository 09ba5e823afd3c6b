"""Every whole kernel for sm_90a on the GPU that is here and on the emulator, now."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hopper_session import Session
from hopper_whole_build import build
from hopper_whole_cases import cases
from hopper_whole_gpu import Order
from hopper_whole_launch import as_run, described, emulated
from hopper_whole_record import SECONDS
from hopper_whole_recording import difference

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as made:
        capability = made.run("describe")["compute_capability"]
        if capability != "9.0":
            pytest.skip(f"needs a Hopper GPU (compute capability 9.0), here is {capability}")
        yield made


@pytest.mark.parametrize(
    ("name", "run"), [(n, run) for n, case in cases().items() for run in case.runs]
)
def test_kernel(session: Session, tmp_path: Path, name: str, run: str) -> None:
    case, kernel = cases()[name], build(name, run)
    tensors = case.inputs(kernel.tensors)
    path = Order(kernel, tensors).write(tmp_path / "order.pickle")
    launched = session.run("whole", str(path), SECONDS)
    assert launched.unstable == (), "another launch gives other results"
    after, findings = emulated(as_run(kernel.ptx, run), described(kernel, tensors), tensors)
    assert findings == []
    tolerance = case.tolerances.get(run)
    for output, value in launched.outputs.items():
        how = difference(value, after[output])
        if how is None:
            continue
        assert tolerance is not None, f"{output}: {how}"
        assert (how.ulps <= tolerance.ulps, how.share <= tolerance.share) == (True, True), how
