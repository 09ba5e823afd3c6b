"""A sample of the suite: real mutants are noticed, and no rule excuses one that is.

All of it is ``run_all.py``'s; its last result is ``docs/emulator-mutations.md``.
"""

from __future__ import annotations

import pytest

from mutation.equivalence import equivalence
from mutation.machine import machine
from mutation.operators import OPERATORS
from mutation.suite import outcomes, run_part

SEED = 1
WGMMA = ("drop-wgmma-wait", "weaken-wgmma-wait", "drop-wgmma-commit", "drop-wgmma-fence")
TENSOR_MEMORY = ("drop-wait-st", "drop-bar-arrive", "coefficient", "more-registers")
SAMPLE: dict[str, tuple[str, ...]] = {
    "quack-sm100": tuple(OPERATORS),
    "own-sm90-dense": WGMMA,
    "fa4-sm100-dense": TENSOR_MEMORY,
}
"""One mutant of each operator. Parametrised by kernel, so that a worker compiles only its own."""


@pytest.mark.slow
@pytest.mark.parametrize(
    "kernel",
    ["quack-sm100", "own-sm90-dense", pytest.param("fa4-sm100-dense", marks=pytest.mark.extended)],
)
def test_what_is_wrong_is_noticed_and_never_excused(kernel: str) -> None:
    """What was noticed is wrong, so no rule may call it equivalent, if it were asked."""
    good = machine(kernel)
    found = list(outcomes([run_part(each, kernel, 1, SEED) for each in SAMPLE[kernel]]))
    assert sum(each.verdict.noticed for each in found) >= len(found) // 2
    assert not [f"{each.mutant.name}: {each.mutant.what}" for each in found if each.survives]
    assert not [each.verdict.message for each in found if each.verdict.notice == "crash"]
    for each in found:
        if each.verdict.noticed and each.verdict.notice != "refused":
            assert not equivalence(good, each.mutant), (each.mutant.name, each.verdict)


def test_every_operator_is_in_the_sample() -> None:
    assert {operator for names in SAMPLE.values() for operator in names} == set(OPERATORS)
