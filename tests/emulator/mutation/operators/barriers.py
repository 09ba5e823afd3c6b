"""Sabotage of mbarriers, named barriers and the barrier of a cluster: arrivals, counts, phases."""

from __future__ import annotations

from collections.abc import Iterator

from fa4gen.ptx.ir import Address, Immediate, Instruction
from mutation.code import Change, Code, Operator, altered, doubled, dropped
from mutation.edits import Edit

_BARRIER_STEP, _COUNT_STEP, _NUMBERS = 8, 32, 16
_TX_STEP = 16
_META = ("bar.sync", "barrier.sync", "bar.arrive", "barrier.arrive")


def _arrivals(code: Code) -> Iterator[Instruction]:
    """Arrivals without a byte count."""
    return (i for i in code.find("mbarrier.arrive") if "expect_tx" not in i.parts)


def _expectations(code: Code) -> Iterator[Instruction]:
    return (i for i in code.find("mbarrier") if "expect_tx" in i.parts)


def drop_arrive(code: Code) -> Iterator[Change]:
    """One thread does not arrive at an mbarrier."""
    return (dropped(inst) for inst in _arrivals(code))


def drop_expect_tx(code: Code) -> Iterator[Change]:
    """Neither the arrival nor its bytes."""
    return (dropped(inst) for inst in _expectations(code))


def drop_commit(code: Code) -> Iterator[Change]:
    """Nobody hears that the MMAs are over."""
    return (dropped(inst) for inst in code.find("tcgen05.commit"))


def duplicate_arrive(code: Code) -> Iterator[Change]:
    """Arrive twice."""
    return (doubled(inst) for inst in code.find("mbarrier.arrive", "tcgen05.commit"))


def flip_parity(code: Code) -> Iterator[Change]:
    """Wait for the other phase."""
    return (altered(code, inst, (2,), ("xor", 1), 32) for inst in code.find("mbarrier.try_wait"))


def shrink_expect_tx(code: Code) -> Iterator[Change]:
    """Expect 16 bytes too few."""
    for inst in _expectations(code):
        yield altered(code, inst, (len(inst.operands) - 1,), ("add", -_TX_STEP), 32)


def grow_expect_tx(code: Code) -> Iterator[Change]:
    """Expect 16 bytes too many."""
    for inst in _expectations(code):
        yield altered(code, inst, (len(inst.operands) - 1,), ("add", _TX_STEP), 32)


def halve_expect_tx(code: Code) -> Iterator[Change]:
    """Expect half of the bytes."""
    for inst in _expectations(code):
        at = len(inst.operands) - 1
        count, old = code.fresh("b32"), inst.operands[at]
        halving = Instruction(0, "shr.u32", (count, old, Immediate(1)), inst.line, inst.guard)
        new = Instruction(
            0, inst.opcode, (*inst.operands[:at], count), inst.line, inst.guard, inst.origin
        )
        yield Change(inst, "half of the bytes", Edit({inst.index: (halving, new)}, (count,)))


def init_count(code: Code) -> Iterator[Change]:
    """Initialise an mbarrier for one arrival more."""
    return (altered(code, inst, (1,), ("add", 1), 32) for inst in code.find("mbarrier.init"))


def drop_init(code: Code) -> Iterator[Change]:
    """Do not initialise an mbarrier."""
    return (dropped(inst) for inst in code.find("mbarrier.init"))


def drop_init_fence(code: Code) -> Iterator[Change]:
    """Initialise mbarriers without the fence behind."""
    return (dropped(inst) for inst in code.find("fence.mbarrier_init"))


def drop_init_barrier(code: Code) -> Iterator[Change]:
    """Neither the fence behind the initialisation nor the next barrier."""
    for inst in code.find("fence.mbarrier_init"):
        kinds = ("bar.sync", "barrier.sync", "barrier.cluster.arrive")
        for other in code.find(*kinds):
            if other.index > inst.index:
                edit = Edit({inst.index: (), other.index: ()})
                yield Change(other, f"dropped, with the fence at line {inst.line}", edit)
                break


def barrier_number(code: Code) -> Iterator[Change]:
    """Meet at another named barrier."""
    for inst in code.find(*_META):
        yield altered(code, inst, (0,), ("xor", 1), 32)


def barrier_count(code: Code) -> Iterator[Change]:
    """Wait for one warp more, or one less."""
    for inst in code.find(*_META):
        if len(inst.operands) > 1:
            yield altered(code, inst, (1,), ("add", _COUNT_STEP), 32)
            yield altered(code, inst, (1,), ("add", -_COUNT_STEP), 32)


def drop_bar_sync(code: Code) -> Iterator[Change]:
    """Do not meet."""
    return (dropped(inst) for inst in code.find("bar.sync", "barrier.sync"))


def drop_bar_arrive(code: Code) -> Iterator[Change]:
    """Do not tell that one is there."""
    return (dropped(inst) for inst in code.find("bar.arrive", "barrier.arrive"))


def drop_cluster_barrier(code: Code) -> Iterator[Change]:
    """Skip one half of the cluster's barrier."""
    kinds = ("barrier.cluster.arrive", "barrier.cluster.wait")
    return (dropped(inst) for inst in code.find(*kinds))


def other_mbarrier(code: Code) -> Iterator[Change]:
    """Use the mbarrier 8 bytes further on."""
    for inst in code.find("mbarrier.arrive", "mbarrier.try_wait", "tcgen05.commit"):
        at = next(n for n, each in enumerate(inst.operands) if isinstance(each, Address))
        address = inst.operands[at]
        assert isinstance(address, Address)
        moved = Address(address.base, address.offset + _BARRIER_STEP)
        operands = (*inst.operands[:at], moved, *inst.operands[at + 1 :])
        new = Instruction(0, inst.opcode, operands, inst.line, inst.guard, inst.origin)
        yield Change(inst, "the mbarrier 8 bytes further on", Edit({inst.index: (new,)}))


OPERATORS: dict[str, Operator] = {
    "drop-arrive": drop_arrive,
    "drop-expect-tx": drop_expect_tx,
    "drop-commit": drop_commit,
    "duplicate-arrive": duplicate_arrive,
    "flip-parity": flip_parity,
    "shrink-expect-tx": shrink_expect_tx,
    "halve-expect-tx": halve_expect_tx,
    "grow-expect-tx": grow_expect_tx,
    "init-count": init_count,
    "drop-init": drop_init,
    "drop-init-fence": drop_init_fence,
    "drop-init-barrier": drop_init_barrier,
    "other-mbarrier": other_mbarrier,
    "barrier-number": barrier_number,
    "barrier-count": barrier_count,
    "drop-bar-sync": drop_bar_sync,
    "drop-bar-arrive": drop_bar_arrive,
    "drop-cluster-barrier": drop_cluster_barrier,
}
