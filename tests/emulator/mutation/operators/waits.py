"""Sabotage of waits and fences: what orders asynchronous work."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from fa4gen.ptx.ir import Instruction, Label
from mutation.code import Change, Code, Operator, altered, dropped, replaced, set_true
from mutation.edits import HERE, Edit

_LOOP = 3
"""Instructions of a wait: try_wait, the branch out, the branch back."""
_TOUCHES = (
    *("ld.shared", "st.shared", "stmatrix", "ldmatrix", "tcgen05.ld", "tcgen05.st", "tcgen05.mma"),
    *("tcgen05.cp", "cp.async.bulk.tensor", "cp.async.bulk", "wgmma.mma_async", "st.async"),
)
"""What a wait guards: accesses of shared and tensor memory."""
_STOPS = ("ret", "exit", "bar", "barrier", "mbarrier.try_wait", "brx")


def drop_wait(code: Code) -> Iterator[Change]:
    """Take for granted that a phase is complete."""
    for inst in code.find("mbarrier.try_wait"):
        yield replaced(inst, set_true(inst.operands[0], inst), "taken as over")


def move_wait(code: Code) -> Iterator[Change]:
    """Wait only after the first access that the wait is for."""
    for first in code.find("mbarrier.try_wait"):
        loop = code.instructions[first.index : first.index + _LOOP]
        if not _is_loop(loop):
            continue
        found = _first_access(code, first.index + _LOOP)
        if found is None:
            continue
        access, behind = found
        leave, back = loop[1], loop[2]
        waiting = (
            first,
            replace(leave, operands=(Label(HERE, _LOOP),)),
            replace(back, operands=(Label(HERE, 0),)),
        )
        places: dict[int, tuple[Instruction, ...]] = {each.index: () for each in loop}
        places[behind] = (*waiting, code.instructions[behind])
        yield Change(
            first, f"moved behind the {access.parts[0]} of line {access.line}", Edit(places)
        )


def _is_loop(loop: tuple[Instruction, ...]) -> bool:
    if len(loop) < _LOOP or any(each.parts[0] != "bra" for each in loop[1:]):
        return False
    ends = [each.operands[0] for each in loop[1:]]
    targets = [end.target if isinstance(end, Label) else -1 for end in ends]
    return targets == [loop[0].index + _LOOP, loop[0].index]


def _first_access(code: Code, start: int) -> tuple[Instruction, int] | None:
    """The first access from ``start`` on, and where behind it all lanes are together again."""
    access, furthest = None, start
    for inst in code.instructions[start:]:
        if access is not None and inst.index >= furthest:
            return access, inst.index
        if any(inst.opcode == s or inst.opcode.startswith(f"{s}.") for s in _STOPS):
            return None
        if inst.parts[0] == "bra":
            (label,) = inst.operands
            if not isinstance(label, Label) or label.target <= inst.index or inst.guard is None:
                return None
            furthest = max(furthest, label.target)
        if access is None and any(inst.opcode.startswith(t) for t in _TOUCHES):
            access = inst
    return None


def drop_proxy_fence(code: Code) -> Iterator[Change]:
    """Do not show ordinary writes to the copy engine and the tensor cores."""
    return (dropped(inst) for inst in code.find("fence.proxy.async"))


def drop_wgmma_wait(code: Code) -> Iterator[Change]:
    """Do not wait for wgmma groups."""
    return (dropped(inst) for inst in code.find("wgmma.wait_group"))


def weaken_wgmma_wait(code: Code) -> Iterator[Change]:
    """Leave one more group outstanding."""
    return (altered(code, inst, (0,), ("add", 1), 32) for inst in code.find("wgmma.wait_group"))


def drop_wgmma_commit(code: Code) -> Iterator[Change]:
    """Do not close a wgmma group."""
    return (dropped(inst) for inst in code.find("wgmma.commit_group"))


def drop_wgmma_fence(code: Code) -> Iterator[Change]:
    """Do not order register accesses before the wgmmas behind."""
    return (dropped(inst) for inst in code.find("wgmma.fence"))


def drop_wait_st(code: Code) -> Iterator[Change]:
    """Do not wait for stores to tensor memory."""
    return (dropped(inst) for inst in code.find("tcgen05.wait::st"))


def drop_wait_ld(code: Code) -> Iterator[Change]:
    """Do not wait for loads from tensor memory."""
    return (dropped(inst) for inst in code.find("tcgen05.wait::ld"))


def drop_bulk_wait(code: Code) -> Iterator[Change]:
    """Do not wait for copies out of shared memory."""
    return (dropped(inst) for inst in code.find("cp.async.bulk.wait_group"))


def weaken_bulk_wait(code: Code) -> Iterator[Change]:
    """Leave one more of them outstanding."""
    for inst in code.find("cp.async.bulk.wait_group"):
        yield altered(code, inst, (0,), ("add", 1), 32)


def drop_bulk_commit(code: Code) -> Iterator[Change]:
    """Do not make a group of copies out of shared memory."""
    return (dropped(inst) for inst in code.find("cp.async.bulk.commit_group"))


OPERATORS: dict[str, Operator] = {
    "drop-wait": drop_wait,
    "move-wait": move_wait,
    "drop-proxy-fence": drop_proxy_fence,
    "drop-wgmma-wait": drop_wgmma_wait,
    "weaken-wgmma-wait": weaken_wgmma_wait,
    "drop-wgmma-commit": drop_wgmma_commit,
    "drop-wgmma-fence": drop_wgmma_fence,
    "drop-wait-st": drop_wait_st,
    "drop-wait-ld": drop_wait_ld,
    "drop-bulk-wait": drop_bulk_wait,
    "weaken-bulk-wait": weaken_bulk_wait,
    "drop-bulk-commit": drop_bulk_commit,
}
