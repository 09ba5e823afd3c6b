"""What commands open: the tuning database and an evaluator."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fa4gen.cli.machine import Target
from fa4gen.cli.output import say
from fa4gen.versions import cutlass_dsl_note

if TYPE_CHECKING:
    from fa4gen.db import TuningStore
    from fa4gen.evaluate.contract import Evaluator


def open_store(
    db: str | None, *, read_only: bool = False, with_shipped: bool = True
) -> TuningStore:
    """The tuning database: what ``--db`` names, else ``FA4GEN_DB``, else the user's.

    With the rows that come with fa4gen beneath it, unless they are not wanted.

    Raises:
        StoreError: it cannot be opened.
    """
    from fa4gen.db import TuningStore

    return TuningStore.open(db, read_only=read_only, with_shipped=with_shipped)


def open_evaluator(target: Target, *, prove: bool = False) -> Evaluator:
    """The GPU where there is one for this SKU, the cycle model elsewhere.

    With ``prove`` the model only speaks for kernels that were compiled and emulated.

    Raises:
        EvaluationError: the GPU cannot be used.
    """
    from fa4gen.evaluate import make_evaluator

    if target.gpu is None:
        return make_evaluator("proven" if prove else "model", target.sku)
    return make_evaluator("gpu", target.sku, device_index=target.gpu.index)


def notices(target: Target, *, prove: bool = False) -> None:
    """Say what stands behind the numbers to come, where that is not a GPU of a tested stack."""
    if target.gpu is None:
        proven = "; every kernel is compiled and proven right in the emulator" if prove else ""
        say(
            f"{target.notice}: times for {target.sku.name} come from the cycle model and every "
            f"row is marked 'modelled'{proven}. On the GPU the same command measures."
        )
    elif note := cutlass_dsl_note():
        say(note)
