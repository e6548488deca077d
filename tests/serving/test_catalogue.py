"""Ids that came behind those of a generation."""

from __future__ import annotations

import numpy as np

from prerank.index import Ids
from prerank.serving.catalogue import Catalogue


def test_new_ids_above_two_to_the_53_stay_what_they_are() -> None:
    new = np.array([1234567890123456789, 1234567890123456787, 2**63 - 1])
    found = Catalogue(Ids(np.array([1, 2, 3]))).added(new)
    assert found.rows(new).tolist() == [3, 4, 5]
    assert found.row(-(2**63)) == -1
