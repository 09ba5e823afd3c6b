"""Chooses the kernels of ``sm100_matrix.toml``: few, but with every value of every knob twice.

    python tests/kernels/make_sm100_matrix.py > tests/kernels/sm100_matrix.toml

From random feasible configurations it takes, one after the other, the one with most values that
have not come up often enough.
"""

from __future__ import annotations

import argparse
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from fa4gen.core.config import KernelConfig, KnobValue
from fa4gen.core.dtypes import DType
from fa4gen.core.problem import KernelSignature
from fa4gen.hardware import load_arch
from fa4gen.space import space_for

TIMES = 2
"""How often each value must come up."""

UNPACKED = 2
"""Largest group of query heads without ``pack_gqa``."""

SIGNATURES = (
    KernelSignature(DType.BF16, 128, 128, False, 1),
    KernelSignature(DType.BF16, 128, 128, True, 1),
    KernelSignature(DType.FP16, 128, 128, True, 4),
    KernelSignature(DType.BF16, 64, 64, False, 2),
    KernelSignature(DType.FP16, 64, 64, True, 1),
    KernelSignature(DType.BF16, 96, 96, True, 8),
    KernelSignature(DType.BF16, 192, 128, False, 1),
    KernelSignature(DType.BF16, 192, 128, True, 4),
    KernelSignature(DType.BF16, 256, 256, True, 1),
    KernelSignature(DType.FP16, 80, 64, False, 4),
)
Entry = tuple[str, KernelSignature, KernelConfig]


def main() -> None:
    """Print the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernels", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    candidates = list(_candidates(rng, per_signature=300))
    chosen: list[Entry] = []
    seen: Counter[tuple[str, KnobValue]] = Counter()
    used: Counter[KernelSignature] = Counter()
    while len(chosen) < options.kernels or _missing(seen):
        best = max(candidates, key=lambda entry: (_news(entry, seen), -used[entry[1]]))
        if len(chosen) >= options.kernels and not _news(best, seen):
            raise SystemExit(f"not covered: {sorted(map(str, _missing(seen)))}")
        candidates.remove(best)
        chosen.append(best)
        seen.update(_values(best))
        used[best[1]] += 1
    _lower_degrees(chosen)
    _smaller_groups(chosen)
    print(f"# Made by make_sm100_matrix.py with seed {options.seed}; every value of every knob of")
    print(f"# search_spaces/sm100_fwd.toml at least {TIMES} times.")
    for entry in chosen:
        _print(*entry)


def _lower_degrees(chosen: list[Entry]) -> None:
    """Give the last kernels with a polynomial degree 1, which no search tries."""
    with_one = [i for i, (_, _, config) in enumerate(chosen) if config.exp2_poly_fraction]
    values = Counter(chosen[i][2].exp2_poly_degree for i in with_one)
    for i in reversed(with_one):
        arch_name, signature, config = chosen[i]
        if values[config.exp2_poly_degree] > TIMES and values[1] < TIMES:
            values[config.exp2_poly_degree] -= 1
            values[1] += 1
            chosen[i] = (arch_name, signature, config.vary({"exp2_poly_degree": 1}))


def _smaller_groups(chosen: list[Entry]) -> None:
    """Heads of a group that is not packed are tiles of their own: two show what eight would."""
    for i, (arch_name, signature, config) in enumerate(chosen):
        if signature.qhead_per_kvhead > UNPACKED and not config.pack_gqa:
            smaller = replace(signature, qhead_per_kvhead=UNPACKED)
            chosen[i] = (arch_name, smaller, config)


def _candidates(rng: random.Random, per_signature: int) -> Iterator[Entry]:
    for arch_name in ("sm100", "sm103"):
        space, arch = space_for(arch_name), load_arch(arch_name)
        signatures = SIGNATURES if arch_name == "sm100" else SIGNATURES[:2]
        for signature in signatures:
            for _ in range(per_signature):
                config = space.sample(rng, signature, arch)
                if arch_name == "sm100" or config.fused_row_max:
                    yield arch_name, signature, config


def _values(entry: Entry) -> set[tuple[str, KnobValue]]:
    knobs = space_for("sm103").knobs  # all of the family
    return {(knob.name, getattr(entry[2], knob.name)) for knob in knobs}


def _missing(seen: Counter[tuple[str, KnobValue]]) -> set[tuple[str, KnobValue]]:
    wanted = {(knob.name, value) for knob in space_for("sm103").knobs for value in knob.values}
    return {value for value in wanted if seen[value] < TIMES}


def _news(entry: Entry, seen: Counter[tuple[str, KnobValue]]) -> int:
    return len(_values(entry) & _missing(seen))


def _print(arch_name: str, signature: KernelSignature, config: KernelConfig) -> None:
    print("\n[[kernel]]")
    print(f'arch = "{arch_name}"')
    facts = {name: _literal(value) for name, value in signature.to_dict().items()}
    print(f"signature = {{ {', '.join(f'{k} = {v}' for k, v in facts.items())} }}")
    changed = config.differences(KernelConfig())
    knobs = {name: _literal(mine) for name, (mine, _) in changed.items()}
    print(f"config = {{ {', '.join(f'{k} = {v}' for k, v in knobs.items())} }}")


def _literal(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value)


if __name__ == "__main__":
    main()
