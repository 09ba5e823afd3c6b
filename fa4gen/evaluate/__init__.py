"""Ways to find out what a configuration does, behind one contract.

Each is made by name through :func:`make_evaluator` and imported only then: the cycle model needs
no torch, and a recorded sweep needs no GPU.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fa4gen.core.errors import EvaluationError, UnknownName
from fa4gen.core.evaluation import MeasurementPolicy
from fa4gen.evaluate.contract import Evaluator
from fa4gen.hardware import Sku

EvaluatorFactory = Callable[..., Evaluator]
"""Makes an evaluator from (sku, policy) and its own options by keyword."""


def _gpu(sku: Sku, policy: MeasurementPolicy, **options: Any) -> Evaluator:
    from fa4gen.evaluate.gpu import GpuEvaluator

    return GpuEvaluator(sku, policy=policy, **options)


def _model(sku: Sku, policy: MeasurementPolicy, **options: Any) -> Evaluator:
    from fa4gen.evaluate.model import ModelEvaluator

    return ModelEvaluator(sku, policy=policy, **options)


def _proven(sku: Sku, policy: MeasurementPolicy, **options: Any) -> Evaluator:
    from fa4gen.evaluate.proven import ProvenModelEvaluator

    return ProvenModelEvaluator(sku, policy=policy, **options)


def _replay(sku: Sku, policy: MeasurementPolicy, *, path: str | Path) -> Evaluator:
    from fa4gen.evaluate.replay import ReplayEvaluator

    evaluator = ReplayEvaluator(Path(path))
    if (evaluator.sku.name, evaluator.policy) != (sku.name, policy):
        raise EvaluationError(
            f"replay of {path}: got a sweep of {evaluator.sku.name} {evaluator.policy}, allowed: "
            f"{sku.name} {policy} as asked for; ask for what the sweep holds"
        )
    return evaluator


def _traced(sku: Sku, policy: MeasurementPolicy, **options: Any) -> Evaluator:
    from fa4gen.evaluate.traced import TraceEvaluator

    return TraceEvaluator(sku, policy=policy, **options)


EVALUATORS: dict[str, EvaluatorFactory] = {
    "gpu": _gpu,
    "model": _model,
    "proven": _proven,
    "replay": _replay,
    "traced": _traced,
}
"""Every way to evaluate by name."""


def make_evaluator(
    name: str, sku: Sku, policy: MeasurementPolicy | None = None, **options: Any
) -> Evaluator:
    """The evaluator of this name; the caller closes it.

    Args:
        name: a key of :data:`EVALUATORS`.
        sku: the product to answer for.
        policy: how times are to be taken; the default one if not given.
        options: keywords of that evaluator: ``device_index`` and more for ``gpu``, ``path`` for
            ``replay``.

    Raises:
        UnknownName: not in :data:`EVALUATORS`.
        EvaluationError: it cannot work here, e.g. without a GPU.
    """
    try:
        factory = EVALUATORS[name]
    except KeyError:
        raise UnknownName("evaluator", name, EVALUATORS) from None
    return factory(sku, policy or MeasurementPolicy(), **options)


__all__ = ["EVALUATORS", "Evaluator", "EvaluatorFactory", "make_evaluator"]
