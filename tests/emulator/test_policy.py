"""What random policies may do to warps and to asynchronous work."""

from __future__ import annotations

import pytest

from fa4gen.emulator.policy import Policy

WARPS, TURNS = 400, 30


def test_a_few_warps_hardly_get_a_turn() -> None:
    """About one in eight executes one instruction at a time, from beginning to end."""
    dice = Policy.parse("seed:0").dice()
    longest = [max(dice.quantum(warp) for _ in range(TURNS)) for warp in range(WARPS)]
    assert WARPS // 16 < longest.count(1) < WARPS // 4
    assert all(each >= 50 for each in longest if each != 1)


@pytest.mark.parametrize("policy", ["eager", "lazy"])
def test_other_policies_let_warps_run(policy: str) -> None:
    dice = Policy.parse(policy).dice()
    assert {dice.quantum(warp) for warp in range(WARPS)} == {2000}
    assert not any(dice.completions(5) for _ in range(WARPS))


def test_seeds_differ_in_how_soon_work_completes() -> None:
    def share(seed: int) -> float:
        dice = Policy.parse(f"seed:{seed}").dice()
        return sum(dice.completions(4) > 0 for _ in range(2000)) / 2000

    soon, later, hardly = map(share, range(3))
    assert soon > 0.5 > later > 0.1 > hardly > 0


def test_a_seed_decides_everything() -> None:
    first, second = (Policy.parse("seed:7").dice() for _ in range(2))
    for _ in range(100):
        assert first.order([1, 2, 3]) == second.order([1, 2, 3])
        assert first.quantum(1) == second.quantum(1)
        assert first.completions(3) == second.completions(3)
