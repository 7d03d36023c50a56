"""Which row an image's tokens are scored by, and what it sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vllm_csp.tokens.batch import IntArray


@dataclass(frozen=True)
class ScoreRows:
    """Where the score row and its keys lie among a stage's rows, for P image prefills.

    query: [P] rows; keys: [P, S] rows, padded with row 0; key_mask: [P, S] bool, which of them the
    query may see; image_columns: [P, budget] columns of ``keys`` that are image tokens, in the
    order of the stage's selection. For ``selectors.readout_attention_scores``.
    """

    query: IntArray
    keys: IntArray
    key_mask: NDArray[np.bool_]
    image_columns: IntArray

    def followed(self, num_rows: int) -> ScoreRows:
        """The same for a row right behind each query row, which sees what that one sees and itself.

        They are rows num_rows..num_rows + P - 1, behind the stage's own ``num_rows``.
        """
        query = num_rows + np.arange(len(self.query))
        itself = np.ones((len(query), 1), dtype=np.bool_)
        return ScoreRows(
            query=query,
            keys=np.hstack((self.keys, query[:, None])),
            key_mask=np.hstack((self.key_mask, itself)),
            image_columns=self.image_columns,
        )
