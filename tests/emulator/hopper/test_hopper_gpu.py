"""Every kernel on the GPU that is here and on the emulator, now."""

from __future__ import annotations

from collections.abc import Iterator

import hopper_forms
import hopper_recording as recording
import numpy as np
import pytest
from hopper_emulated import run_emulated
from hopper_registry import kernels
from hopper_session import Session, TaskError

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module")
def session() -> Iterator[Session]:
    with Session() as made:
        capability = made.run("describe")["compute_capability"]
        if capability != "9.0":
            pytest.skip(f"needs a Hopper GPU (compute capability 9.0), here is {capability}")
        yield made


@pytest.mark.parametrize("name", kernels())
def test_kernel(session: Session, name: str) -> None:
    kernel = kernels()[name]
    if kernel.faults:
        with pytest.raises(TaskError, match=f"error {kernel.faults}"):
            session.run("kernel", name)
        return
    ran = session.run("kernel", name)
    assert ran.unstable == (), "another launch gives other results"
    if "status" in ran.outputs:
        assert not ran.outputs["status"].any(), "a wait gave up"
    if kernel.only_gpu:
        return
    for output, wanted in kernel.wanted().items():
        np.testing.assert_array_equal(ran.outputs[output], wanted, output)
    emulated = run_emulated(kernel).outputs
    for output, value in ran.outputs.items():
        assert recording.differences(kernel.outputs[output], value, emulated[output]) == []


@pytest.mark.parametrize("name", hopper_forms.files())
def test_vector_file(session: Session, name: str) -> None:
    found = session.run("forms", name)
    assert found["differ"] == []


def test_a_fault_costs_one_task() -> None:
    with Session() as made:
        with pytest.raises(TaskError):
            made.run("kernel", "no such kernel")
        assert made.run("describe")
