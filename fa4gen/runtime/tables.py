"""The rows of the tuning table, read once per process."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from fa4gen.core.errors import MissingDependency, StoreError

if TYPE_CHECKING:
    from fa4gen.db import DispatchRow


def load_rows() -> tuple[DispatchRow, ...]:
    """Every dispatch row: the user's and the shipped ones.

    A user's table that cannot be read costs a warning, not the call: the shipped rows are used.
    """
    from fa4gen.db import TuningStore

    try:
        with TuningStore.open(read_only=True) as store:
            return tuple(store.dispatch_rows())
    except (StoreError, MissingDependency) as error:
        warnings.warn(
            f"{error}; kernels are selected without your own table until it can be read",
            RuntimeWarning,
            stacklevel=2,
        )
    with TuningStore.open(":memory:") as store:
        return tuple(store.dispatch_rows())
