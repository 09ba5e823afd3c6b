"""Rules about mutants that follow from the order in which warps execute instructions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache

from fa4gen.ptx.ir import Immediate, Instruction, Vector
from mutation.code import Code, Mutant
from mutation.facts import Facts, Phase, Site, Thread, site_of
from mutation.inert import is_inert, slots_of
from mutation.machine import Machine

_GROUPS = ("cp.async.bulk.commit_group", "cp.async.bulk.wait_group")
_STORE = ".global.shared::cta"
"""Of a bulk copy that only reads shared memory."""


def last_wait(machine: Machine, mutant: Mutant) -> str:
    """A wait before the end of a warp that the CTA's life does not depend on."""
    if mutant.operator not in {"drop-wait", "move-wait"}:
        return ""
    return _needless_waits(machine).get(mutant.site.index, "")


@lru_cache(maxsize=1)
def _needless_waits(machine: Machine) -> dict[int, str]:
    """Waits before a warp's end that are not needed for what the warp does, with the reason."""
    code, facts, found = machine.code, machine.facts, {}
    for at in {at for history in machine.histories for at in _tail(code, facts, history)}:
        signals = {opcode for _, opcode in _signals(facts, code.instructions[at])}
        if signals and all(opcode.startswith("mbarrier.arrive.shared.") for opcode in signals):
            found[at] = (
                "behind it the warp only ends; those who signal are warps of the same CTA, which "
                "lives until they end, too"
            )
        elif _covered(facts, site_of(code.instructions[at])):
            found[at] = (
                "behind it the warp only ends; another wait of the CTA is for a later signal of "
                "the same threads, which covers everything before it"
            )
    return found


def _covered(facts: Facts, wait: Site) -> bool:
    """Whether others see a later signal of every thread that signals a phase the wait sees.

    An arrival releases what its thread did before, earlier arrivals included, and a commit covers
    what earlier ones do. It must be seen in the same CTA, as that is whose life is at stake.
    """
    others: set[Phase] = set()
    for site, phases in facts.seen.items():
        others |= set() if site == wait else phases
    left = set(facts.seen[wait]) - others
    for (_, opcode), phases in facts.arrivals.items():
        if "expect_tx" in opcode and phases & left:
            return False
    later: set[tuple[Thread, int]] = set()
    for thread, phase in reversed(facts.signals):
        if phase in left and (thread, phase[1]) not in later:
            return False
        if phase in others:
            later.add((thread, phase[1]))
    return left <= {phase for _, phase in facts.signals}


def _tail(code: Code, facts: Facts, history: list[int]) -> tuple[int, ...]:
    """The waits of a warp behind which it does nothing but wait and end."""
    waits: list[int] = []
    for place, at in reversed(list(enumerate(history))):
        inst = code.instructions[at]
        if "try_wait" in inst.parts:
            waits.append(at)
        elif not is_inert(facts, inst):
            before = set(history[:place])
            return tuple(at for at in waits if at not in before)
    return tuple(waits)


def _signals(facts: Facts, wait: Instruction) -> frozenset[Site]:
    """Who signals the phases that a wait sees."""
    seen = facts.seen[site_of(wait)]
    return frozenset(site for site, phases in facts.arrivals.items() if phases & seen)


def register_fence(machine: Machine, mutant: Mutant) -> str:
    """Nothing touches the registers of the wgmmas behind it since the fence before (9.7.15.7.1)."""
    if mutant.operator != "drop-wgmma-fence":
        return ""
    seen = False
    for history in machine.histories:
        code = [machine.code.instructions[at] for at in history]
        for place, inst in enumerate(code):
            if inst.index == mutant.site.index:
                seen = True
                if not _untouched(code, place):
                    return ""
    if not seen:
        return ""
    return (
        "since another wgmma.fence, nothing has touched the registers of the wgmmas behind it but "
        "wgmmas with the same accumulator"
    )


def _untouched(code: list[Instruction], place: int) -> bool:
    """Whether the fence at ``place`` of what a warp executes has nothing to order."""
    behind = []
    for inst in code[place + 1 :]:
        if inst.opcode.startswith("wgmma.fence"):
            break
        if inst.opcode.startswith("wgmma.mma_async"):
            behind.append(inst)
    accumulators = {(inst.opcode, inst.operands[0]) for inst in behind}
    results = {slot for _, each in accumulators for slot in slots_of((each,))}
    factors = {
        slot
        for inst in behind
        if isinstance(inst.operands[1], Vector)
        for slot in slots_of(inst.operands[1:2])
    }
    for inst in reversed(code[:place]):
        if inst.opcode.startswith("wgmma.mma_async"):
            apart = not slots_of(inst.operands[:1]) & (results | factors)
            if slots_of(inst.operands[1:]) & results:
                return False
            if not apart and (inst.opcode, inst.operands[0]) not in accumulators:
                return False
        elif inst.opcode.startswith("wgmma.fence"):
            if inst.index != code[place].index:
                return True
        elif slots_of(inst.operands) & (results | factors):
            return False
    return False


def bulk_groups(machine: Machine, mutant: Mutant) -> str:
    """No group is outstanding, or nothing happens until another wait is for it."""
    operators = {"drop-bulk-wait", "weaken-bulk-wait", "drop-bulk-commit"}
    if mutant.operator not in operators:
        return ""
    for history in machine.histories:
        code = [machine.code.instructions[at] for at in history]
        for place in (n for n, inst in enumerate(code) if inst.index == mutant.site.index):
            if mutant.operator == "drop-bulk-commit":
                harmless = _joins(machine.facts, code, place)
            else:
                idle = _outstanding(code, place) <= _limit(code[place])
                harmless = idle or _waits_again(machine.facts, code, place)
            if not harmless:
                return ""
    return "until another wait of the thread covers the same copies, it does nothing that is seen"


def _limit(wait: Instruction) -> int:
    literal = wait.operands[0]
    return literal.value if isinstance(literal, Immediate) else 0


def _is_wait(inst: Instruction) -> bool:
    return inst.opcode.startswith("cp.async.bulk.wait_group") and inst.guard is None


def _outstanding(code: list[Instruction], place: int) -> int:
    """At most how many groups a thread has when it comes to the wait at ``place``."""
    wait, count = code[place], 0
    for inst in code[:place]:
        same = ".read" in wait.opcode or ".read" not in inst.opcode
        if inst.opcode.startswith("cp.async.bulk.commit_group"):
            count += 1
        elif _is_wait(inst) and same and inst.index != wait.index:
            count = min(count, _limit(inst))
    return count


def _until_seen(facts: Facts, code: list[Instruction]) -> Iterator[Instruction]:
    """What a warp executes, up to the first instruction that others could notice."""
    for inst in code:
        stores = inst.opcode.startswith(_GROUPS) or (
            inst.opcode.startswith("cp.async.bulk") and _STORE in inst.opcode
        )
        if not (stores or "try_wait" in inst.parts or is_inert(facts, inst)):
            return
        yield inst


def _waits_again(facts: Facts, code: list[Instruction], place: int) -> bool:
    """Whether a wait behind the one at ``place`` covers the same groups, before anybody cares."""
    wait, commits = code[place], 0
    for inst in _until_seen(facts, code[place + 1 :]):
        commits += inst.opcode.startswith("cp.async.bulk.commit_group")
        same = ".read" in wait.opcode or ".read" not in inst.opcode
        other = _is_wait(inst) and same and inst.index != wait.index
        if other and _limit(inst) <= _limit(wait) + commits:
            return True
    return False


def _joins(facts: Facts, code: list[Instruction], place: int) -> bool:
    """Whether the copies before the commit at ``place`` may as well belong to the next group."""
    commits, late = 0, False
    kinds = {inst.opcode for inst in code if _is_wait(inst)}
    behind = code[place + 1 :]
    seen = iter(_until_seen(facts, behind))
    for inst in behind:
        unseen = next(seen, None) is not None
        if late and not unseen:
            return False
        if inst.opcode.startswith("cp.async.bulk.commit_group"):
            commits += 1
        elif _is_wait(inst):
            if _limit(inst) < commits:
                return len(kinds) == 1
            late = True  # one group less is behind those before
            if late and not unseen:
                return False
    return False
