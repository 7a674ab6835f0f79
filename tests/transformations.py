"""All transformations that are tested, each with its meaning by hand."""

from __future__ import annotations

import rows_batches
import rows_calls
import rows_derivatives
import rows_loops
from rows import Row

ROWS: dict[str, Row] = {
    **rows_calls.ROWS,
    **rows_loops.ROWS,
    **rows_derivatives.ROWS,
    **rows_batches.ROWS,
}
