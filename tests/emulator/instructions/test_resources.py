"""``setmaxnreg``: who waits for whose registers, and what is against the rules."""

from __future__ import annotations

import pytest
from per_lane import kinds, run_lanes

from fa4gen.core.errors import UnsupportedInstruction
from fa4gen.emulator.emulate import Emulation

GROUPS = """.reg .pred low; setp.lt.u32 low, tid, 128; @low bra LOW;
{high}
bra END;
LOW: {low}
END:"""


def two_groups(low: str, high: str, **options: object) -> Emulation:
    """Two warpgroups of 128 threads."""
    _, run = run_lanes(GROUPS.format(low=low, high=high), block=256, **options)
    return run


def change(action: str, count: int) -> str:
    return f"setmaxnreg.{action}.sync.aligned.u32 {count};"


@pytest.mark.parametrize("policy", ["eager", "lazy", "seed:0", "seed:1"])
@pytest.mark.parametrize("at_launch", [120, 125, 128])
def test_what_one_group_gives_the_other_takes(at_launch: int, policy: str) -> None:
    """125 registers count as 128; with 120, 8 + 8 registers a thread are missing."""
    run = two_groups(
        change("dec", 56), change("inc", 200), regs_per_thread=at_launch, policy=policy
    )
    if at_launch == 120:
        assert kinds(run) == ["deadlock"]
        message = run.findings[0].message
        assert "200 registers a thread, where it owns 120" in message
        # Three of the warps find (120 - 56) * 4 / (200 - 120) = 3.2 of them served.
        assert f"the pool has {(64 * 4 - 80 * 3) * 32}" in message
    else:
        assert run.ok, run.findings


def test_an_increase_waits() -> None:
    """The pool is empty until the other group gives, which it does after a barrier."""
    low = f"bar.sync 1, 128; {change('dec', 24)}"
    run = two_groups(low, change("inc", 232), regs_per_thread=128)
    assert run.ok, run.findings
    run = two_groups("bar.sync 1, 128;", change("inc", 232), regs_per_thread=128)
    assert kinds(run) == ["deadlock"]


def test_without_a_known_launch_nothing_is_counted() -> None:
    run = two_groups(change("dec", 24), change("inc", 256))
    assert run.ok, run.findings


@pytest.mark.parametrize(
    ("at_launch", "line", "message"),
    [
        (64, change("dec", 72), "got 72 registers, allowed: at most the 64"),
        (128, change("inc", 120), "got 120 registers, allowed: at least the 128"),
    ],
)
def test_a_change_in_the_wrong_direction_is_reported(
    at_launch: int, line: str, message: str
) -> None:
    _, run = run_lanes(line, block=128, regs_per_thread=at_launch)
    assert kinds(run) == ["resource"]
    assert message in run.findings[0].message


def test_equal_counts_change_nothing() -> None:
    line = change("dec", 128) + change("inc", 128)
    _, run = run_lanes(line, block=128, regs_per_thread=128)
    assert run.ok


def test_warps_of_a_group_must_do_the_same() -> None:
    body = f""".reg .pred low; setp.lt.u32 low, tid, 96; @low bra LOW; {change("dec", 40)} bra END;
    LOW: {change("dec", 56)} END:"""
    _, run = run_lanes(body, block=128)
    assert kinds(run) == ["resource"]
    assert "warpgroup 0 of CTA 0" in run.findings[0].message
    assert "warp 2: dec 56; warp 3: dec 40" in run.findings[0].message
    _, run = run_lanes(body.replace(" 40;", " 56;"), block=128)
    assert run.ok, run.findings


def test_half_a_warp_is_reported() -> None:
    body = f".reg .pred low; setp.lt.u32 low, tid, 16; @low {change('dec', 40)}"
    _, run = run_lanes(body)
    assert kinds(run) == ["convergence"]


@pytest.mark.parametrize(
    "line",
    [
        change("dec", 16),
        change("inc", 264),
        change("inc", 100),
        "setmaxnreg.inc.sync.aligned.u32 tid;",
        "setmaxnreg.set.sync.aligned.u32 64;",
        "setmaxnreg.inc.sync.u32 64;",
    ],
)
def test_what_is_not_known_is_refused(line: str) -> None:
    with pytest.raises(UnsupportedInstruction, match="PTX line"):
        run_lanes(line)
