"""The tuning database: what was tried, what won, and how sure we are.

The only part of fa4gen that knows SQLAlchemy and Alembic. Values of :mod:`fa4gen.core` go in and
come out; rows and SQL stay inside.
"""

from fa4gen.db.shipped import build_shipped
from fa4gen.db.store import TuningStore, default_location
from fa4gen.db.values import (
    DispatchRow,
    Origin,
    SkippedRow,
    Store,
    StoredEvaluation,
    TransferReport,
)

__all__ = [
    "DispatchRow",
    "Origin",
    "SkippedRow",
    "Store",
    "StoredEvaluation",
    "TransferReport",
    "TuningStore",
    "build_shipped",
    "default_location",
]
