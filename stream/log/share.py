"""Shares of a history by user, for work on many machines: each user's rows are one share's, so their order holds."""

from typing import NamedTuple

import mmh3
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray


class Share(NamedTuple):
    """The users whose hash leaves the remainder `number` when it is divided by `of`; the same on every machine."""

    number: int
    of: int

    def has(self, user_ids: pa.Array) -> NDArray[np.bool_]:
        """Per row whether its user is of this share. Ids may be their JSON: 7 and "7" are of the same share."""
        texts = pc.utf8_trim(pc.fill_null(user_ids.cast(pa.string()), ""), '"').dictionary_encode()
        shares = [mmh3.hash(text, signed=False) % self.of for text in texts.dictionary.to_pylist()]
        has: NDArray[np.bool_] = np.array(shares, np.int64)[texts.indices.to_numpy()] == self.number
        return has
