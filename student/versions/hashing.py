"""Which row of the embedding table a categorical value has: the same rule for learner and scorer. No torch."""

import numpy as np
from numpy.typing import NDArray

from features.spec import MISSING_HASH


def embedding_rows(categorical_BC: NDArray[np.uint64], table_rows: int) -> NDArray[np.int64]:
    """Rows [B, C] of 64-bit hashes: 1 + h mod (`table_rows` - 1); 0 for a missing value.

    The hashing trick (Weinberger et al. 2009): memory is bounded and an id never seen before has a row at once; two
    ids may share one.
    """
    row_BC = (categorical_BC % np.uint64(table_rows - 1) + np.uint64(1)).astype(np.int64)
    row_BC *= categorical_BC != MISSING_HASH
    return row_BC
