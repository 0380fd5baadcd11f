"""Contrastive learning of embeddings: InfoNCE over the global batch, and the two figures that say what became of the space.

Notation: n rows of this rank, B rows of the global batch, C width.
"""

from __future__ import annotations

import math

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn import functional as F

from papertrial.nn.ranks import all_rows, world_size


def info_nce(
    queries: Tensor,
    keys: Tensor,
    temperature: float,
    negatives: Tensor | None = None,
    groups: Tensor | None = None,
    log_weight: float = 0.0,
) -> Tensor:
    """Mean over rows of -log softmax(cos(query, .) / temperature) at the row's own key: arXiv 2104.08821, eq. 1 and 5.

    queries, keys: (n, C), any float type, row i of one belonging to row i of the other; the keys of all ranks compete, and
    gradients pass to them.  negatives: (n, C), one more wrong key for each row, which competes in all rows.  groups: int64
    (n,); a key whose row is of the same group as the query is not counted as wrong, because it is none.  log_weight: added
    to the logit of a row's own negative.
    Returns a scalar for the rows of this rank. Raises ValueError for shapes that do not agree.
    """
    others = [keys] if negatives is None else [keys, negatives]
    if queries.ndim != 2 or any(x.shape != queries.shape for x in others):
        shapes = ", ".join(str(tuple(x.shape)) for x in (queries, *others))
        raise ValueError(f"queries, keys and negatives are rows of one shape (n, C), got {shapes}")
    if groups is not None and groups.shape != queries.shape[:1]:
        raise ValueError(f"{len(queries)} rows, but groups {tuple(groups.shape)}")
    with torch.autocast(queries.device.type, enabled=False):  # a temperature of 0.05 makes 20 of an error of 1
        query = unit(queries)
        logits = query @ all_rows(unit(keys)).T / temperature
        own = torch.arange(len(queries), device=queries.device) + _rows_before(len(queries), queries.device)
        if groups is not None:
            same = groups[:, None] == all_rows(groups)
            logits = logits.masked_fill(same.scatter(1, own[:, None], False), -torch.inf)
        if negatives is not None:
            wrong = query @ all_rows(unit(negatives)).T / temperature
            if log_weight:
                wrong = wrong + log_weight * F.one_hot(own, wrong.shape[1])
            logits = torch.cat([logits, wrong], 1)
        return F.cross_entropy(logits, own)


def unit(x: Tensor) -> Tensor:
    """Rows (n, C) of length 1, in float32 where they come in half precision; a row of zeros stays."""
    return F.normalize(x.float() if x.dtype in (torch.float16, torch.bfloat16) else x, dim=-1)


def alignment(first: Tensor, second: Tensor) -> Tensor:
    """Mean squared distance of the unit vectors of rows that belong together, 0 to 4 (arXiv 2005.10242, eq. 1, alpha 2)."""
    return (unit(first) - unit(second)).square().sum(-1).mean()


def uniformity(x: Tensor) -> Tensor:
    """Log of the mean of exp(-2 squared distance) over pairs of two rows of x (n, C) as unit vectors, -8 to 0: 0 where all
    are the same (arXiv 2005.10242, eq. 2, t 2). Raises ValueError for fewer than two rows."""
    if len(x) < 2:
        raise ValueError("uniformity is of pairs of rows, and there are none")
    x = unit(x)
    first, second = torch.triu_indices(len(x), len(x), 1, device=x.device)
    squared = (2 - 2 * x @ x.T).clamp(min=0)[first, second]
    return (-2 * squared).logsumexp(0) - math.log(len(first))


def _rows_before(count: int, device: torch.device) -> int:
    """Rows of the ranks before this one."""
    if world_size() == 1:
        return 0
    counts = torch.zeros(world_size(), dtype=torch.int64, device=device)
    counts[dist.get_rank()] = count
    dist.all_reduce(counts)
    return int(counts[: dist.get_rank()].sum())
