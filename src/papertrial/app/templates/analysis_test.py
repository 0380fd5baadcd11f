"""my_paper against an implementation of its own, on awkward inputs too."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from papertrial.papers import my_paper


@pytest.mark.parametrize("offset", [0.0, 1e3])
@pytest.mark.parametrize(("rows", "columns"), [(5, 3), (3, 5), (40, 8)])
def test_the_rank_is_the_equation(rows, columns, offset):
    x = np.random.default_rng(0).normal(offset, 1, (rows, columns))
    centred = x - x.mean(0)
    # eigenvalues of the covariance, by another route than the singular values
    values = np.sqrt(np.clip(np.linalg.eigvalsh(centred.T @ centred), 0, None))
    share = values[values > 1e-6 * values.max()]
    share = share / share.sum()
    wanted = np.exp(-(share * np.log(share)).sum())
    np.testing.assert_allclose(my_paper.effective_rank(torch.from_numpy(x)), wanted, rtol=1e-6)
