"""Answers from a recorded sweep, so that search code runs without a GPU and without a model.

A recorded sweep is a file of JSON Lines in the format of ``fa4gen export`` (one measurement a
line, see :mod:`fa4gen.db.codec`); so whatever a tuner has measured anywhere can be replayed. It
holds measurements of one SKU, source and policy.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Self

from fa4gen.core.canonical import identity
from fa4gen.core.config import KernelConfig
from fa4gen.core.errors import Fa4genError, ResourceError
from fa4gen.core.evaluation import Evaluation, MeasurementPolicy
from fa4gen.core.outcome import Outcome, Source
from fa4gen.core.problem import AttentionProblem
from fa4gen.core.verdict import Reason
from fa4gen.db.codec import Record, record_from_line, record_to_line
from fa4gen.hardware import Sku, load_sku

NOT_RECORDED = "not recorded"


@dataclass(frozen=True)
class Sweep:
    """What was found for each configuration of each problem; the last line of a pair counts."""

    problems: tuple[AttentionProblem, ...]
    """In the order they first appear."""
    results: Mapping[tuple[str, str], Evaluation]
    """(problem id, config id) -> evaluation."""
    configs: Mapping[str, KernelConfig]
    """By config id, in the order they first appear."""
    sku: str
    source: Source
    policy: MeasurementPolicy

    @classmethod
    def of(cls, records: Iterable[Record]) -> Sweep:
        """The sweep made of these records.

        Raises:
            ResourceError: no records, or records that may not be compared with each other.
        """
        problems: dict[str, AttentionProblem] = {}
        results: dict[tuple[str, str], Evaluation] = {}
        configs: dict[str, KernelConfig] = {}
        keys = set()
        for record in records:
            problems.setdefault(record.problem.problem_id, record.problem)
            configs.setdefault(record.config.config_id, record.config)
            results[record.problem.problem_id, record.config.config_id] = record.evaluation
            provenance = record.evaluation.provenance
            keys.add((provenance.sku, provenance.source, record.policy))
        if len(keys) != 1:
            got = "; ".join(f"{sku} {source.value} {policy}" for sku, source, policy in keys)
            raise ResourceError(
                f"sweep: got {got or 'no records'}, allowed: records of exactly one SKU, source "
                f"and policy; export them apart"
            )
        sku, source, policy = keys.pop()
        return cls(tuple(problems.values()), results, configs, sku, source, policy)

    def get(self, problem: AttentionProblem, config: KernelConfig) -> Evaluation | None:
        """What was found, ``None`` when it was not tried."""
        return self.results.get((problem.problem_id, config.config_id))

    def anchor(self, problem: AttentionProblem) -> KernelConfig | None:
        """The default of the day it was recorded, which gains are relative to, if it is there.

        A measurement names it; a modelled sweep has it first of those with gain 1.
        """
        for config in self.configs.values():
            found = self.get(problem, config)
            if found is None:
                continue
            if (named := self.configs.get(str(found.details.get("anchor")))) is not None:
                return named
            if found.timing is not None and found.timing.gain == 1.0:
                return config
        return None

    def best(self, problem: AttentionProblem) -> tuple[KernelConfig, Evaluation] | None:
        """The fastest configuration of a problem; ``None`` when none ran."""
        found = [
            (evaluation.timing.gain, self.configs[config_id], evaluation)
            for (problem_id, config_id), evaluation in self.results.items()
            if problem_id == problem.problem_id and evaluation.timing is not None
        ]
        if not found:
            return None
        _, config, evaluation = max(found, key=lambda entry: entry[0])
        return config, evaluation


def read_sweep(path: str | Path) -> Sweep:
    """The sweep in a JSON-Lines file, packed by gzip if its name ends in ``.gz``.

    Raises:
        ResourceError: unreadable, a malformed line (named), or mixed records.
    """
    try:
        data = Path(path).read_bytes()
        if Path(path).suffix == ".gz":
            data = gzip.decompress(data)
        lines = data.decode().splitlines()
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ResourceError(f"sweep {path}: cannot be read ({error})") from None
    records = []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(record_from_line(json.loads(line)))
        except (ValueError, Fa4genError) as error:
            raise ResourceError(f"sweep {path}, line {number}: {error}") from None
    return Sweep.of(records)


def write_sweep(
    path: Path,
    policy: MeasurementPolicy,
    found: Iterable[tuple[AttentionProblem, KernelConfig, Evaluation]],
) -> int:
    """Write a sweep, compressed if ``path`` ends in ``.gz``; gives the number of lines."""
    lines = [
        sweep_line(problem, config, policy, evaluation) for problem, config, evaluation in found
    ]
    text = "".join(line + "\n" for line in lines).encode()
    path.write_bytes(gzip.compress(text, mtime=0) if path.suffix == ".gz" else text)
    return len(lines)


def sweep_line(
    problem: AttentionProblem,
    config: KernelConfig,
    policy: MeasurementPolicy,
    evaluation: Evaluation,
) -> str:
    """One evaluation as a line of a sweep, without its newline.

    Left out, since a sweep is kept for its times: the evaluation's free details, and what the
    provenance leaves empty.
    """
    uid = identity({"problem": problem.problem_id, "config": config.config_id})
    line = record_to_line(Record(uid, problem, config, policy, replace(evaluation, details={})))
    provenance = line["evaluation"]["provenance"]
    line["evaluation"]["provenance"] = {k: v for k, v in provenance.items() if v}
    return json.dumps(line, sort_keys=True, separators=(",", ":"))


class ReplayEvaluator:
    """An :class:`~fa4gen.evaluate.contract.Evaluator` over a recorded sweep.

    A configuration that is not in it is ``infeasible``, with the message :data:`NOT_RECORDED`.

    Raises:
        ResourceError: see :func:`read_sweep`.
    """

    def __init__(self, sweep: Sweep | str | Path) -> None:
        self.sweep = sweep if isinstance(sweep, Sweep) else read_sweep(sweep)
        self._provenance = next(iter(self.sweep.results.values())).provenance

    @property
    def source(self) -> Source:
        """What stood behind the recorded numbers."""
        return self.sweep.source

    @property
    def policy(self) -> MeasurementPolicy:
        """How the recorded times were taken."""
        return self.sweep.policy

    @cached_property
    def sku(self) -> Sku:
        """The product the sweep was recorded on."""
        return load_sku(self.sweep.sku)

    def prepare(
        self, problem: AttentionProblem, configs: Sequence[KernelConfig], *, later: bool = False
    ) -> None:
        """Nothing to prepare."""

    def evaluate(self, problem: AttentionProblem, config: KernelConfig) -> Evaluation:
        """What was recorded."""
        found = self.sweep.get(problem, config)
        if found is not None:
            return found
        message = f"{NOT_RECORDED}: the sweep has no line for {config.config_id} on {problem}"
        reason = Reason("recorded", message, 1.0)
        return Evaluation(Outcome.INFEASIBLE, self._provenance, NOT_RECORDED, (reason,))

    def shootout(
        self,
        problem: AttentionProblem,
        configs: Sequence[KernelConfig],
        *,
        budget_s: float | None = None,
    ) -> list[Evaluation]:
        """What was recorded; a recording does not get sharper by repeating."""
        return [self.evaluate(problem, config) for config in configs]

    def close(self) -> None:
        """Nothing to give back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
