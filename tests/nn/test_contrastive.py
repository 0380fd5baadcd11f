"""InfoNCE against sentence-transformers, finite differences, awkward rows, and several processes against one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from papertrial.nn.contrastive import alignment, info_nce, uniformity
from papertrial.testing import in_ranks


def embeddings(kind="plain", rows=9, width=6, count=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(count, rows, width, generator=generator, dtype=torch.float64)
    found[1] = 0.7 * found[0] + 0.3 * found[1]
    change = {
        "plain": lambda z: z,
        "wide": lambda z: z * 10 ** torch.linspace(-3, 3, width, dtype=torch.float64),
        "shifted": lambda z: z + 1e3,
        "tiny": lambda z: z * 1e-6,
        "large": lambda z: z * 1e6,
        "collapsed": lambda z: z[:, :1].expand(-1, -1, width).sign() + 1e-3 * z,
    }[kind]
    return [z.clone().requires_grad_() for z in change(found)]


KINDS = ["plain", "wide", "shifted", "tiny", "large", "collapsed"]


class Given(nn.Module):
    """Stands where sentence-transformers has a model: the features are the embeddings."""

    def forward(self, features):
        return {"sentence_embedding": features}


@pytest.mark.parametrize("negatives", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_equal_to_sentence_transformers(kind, negatives):
    losses = pytest.importorskip("sentence_transformers.losses")
    ours, theirs = embeddings(kind), embeddings(kind)
    used = 3 if negatives else 2
    loss = info_nce(*ours[:2], 0.05, ours[2] if negatives else None)
    wanted = losses.MultipleNegativesRankingLoss(Given(), scale=20.0)(theirs[:used], None)
    loss.backward()
    wanted.backward()
    assert float(loss.detach()) == pytest.approx(float(wanted.detach()), rel=1e-9)
    for mine, other in zip(ours[:used], theirs[:used], strict=True):
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-7, atol=1e-9 * float(other.grad.abs().max()))


def test_gradient_by_finite_differences():
    h, plus, minus = embeddings(rows=4, width=3)
    groups = torch.tensor([0, 1, 0, 2])
    assert torch.autograd.gradcheck(lambda *z: info_nce(z[0], z[1], 0.5, z[2], groups, 0.7), (h, plus, minus))


def test_the_weight_is_on_a_rows_own_negative_only():
    h, plus, minus = (z.detach() for z in embeddings())
    cosine = torch.cosine_similarity(h[:, None], torch.cat([plus, minus])[None], -1) / 0.05
    for row in range(len(h)):
        cosine[row, len(h) + row] += 1.5
    wanted = nn.functional.cross_entropy(cosine, torch.arange(len(h)))
    assert float(info_nce(h, plus, 0.05, minus, log_weight=1.5)) == pytest.approx(float(wanted), rel=1e-12)


def test_a_row_that_occurs_twice_is_not_its_own_wrong_answer():
    h, plus, _ = (z.detach() for z in embeddings())
    first, second = (torch.cat([z, z[:2]]) for z in (h, plus))
    groups = [*range(9), 0, 1]
    cosine = torch.cosine_similarity(first[:, None], second[None], -1) / 0.05
    rows = []
    for row in range(11):
        competing = [key for key in range(11) if key == row or groups[key] != groups[row]]
        rows.append(cosine[row, competing].logsumexp(0) - cosine[row, row])
    found = info_nce(first, second, 0.05, groups=torch.tensor(groups))
    assert float(found) == pytest.approx(float(torch.stack(rows).mean()), rel=1e-12)


def test_without_wrong_answers_there_is_nothing_to_lose():
    h, plus, _ = embeddings(rows=5)
    loss = info_nce(h, plus, 0.05, groups=torch.zeros(5, dtype=torch.int64))
    loss.backward()
    assert float(loss.detach()) == 0.0 and float(h.grad.abs().max()) == 0.0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_half_precision_is_computed_in_single(dtype):
    h, plus, _ = (z.detach().to(dtype) for z in embeddings())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = info_nce(h, plus, 0.05)
    assert loss.dtype == torch.float32
    assert float(loss) == pytest.approx(float(info_nce(h.double(), plus.double(), 0.05)), abs=1e-5)


def test_rows_of_zeros_do_not_make_it_infinite():
    h, plus, _ = embeddings()
    with torch.no_grad():
        h[0] = 0
    loss = info_nce(h, plus, 0.05)
    loss.backward()
    assert math.isfinite(float(loss.detach())) and bool(h.grad.isfinite().all())


@pytest.mark.parametrize("shapes", [((4, 3), (5, 3)), ((4, 3), (4, 2)), ((4,), (4,))], ids=str)
def test_shapes_that_do_not_agree(shapes):
    with pytest.raises(ValueError, match="one shape"):
        info_nce(*(torch.randn(shape) for shape in shapes), 0.05)
    with pytest.raises(ValueError, match="groups"):
        info_nce(torch.randn(4, 3), torch.randn(4, 3), 0.05, groups=torch.zeros(3))


def test_alignment_and_uniformity_by_hand():
    first, second = np.random.default_rng(0).normal(size=(2, 20, 5))
    a, b = (z / np.linalg.norm(z, axis=1, keepdims=True) for z in (first, second))
    apart = [np.sum((a[i] - a[j]) ** 2) for i in range(20) for j in range(i)]
    assert float(alignment(torch.tensor(first), torch.tensor(second))) == pytest.approx(((a - b) ** 2).sum(1).mean())
    assert float(uniformity(torch.tensor(first))) == pytest.approx(np.log(np.mean(np.exp(-2 * np.array(apart)))))
    with pytest.raises(ValueError, match="pairs"):
        uniformity(torch.ones(1, 3))


def _rank(rank, folder):
    rows = [slice(0, 2), slice(2, 9)][rank]  # ranks need not have equally many
    z = [x.detach() for x in embeddings()]
    local = [x[rows].clone().requires_grad_() for x in z]
    groups = torch.tensor([0, 1, 2, 0, 3, 4, 5, 6, 1])[rows]
    loss = info_nce(*local[:2], 0.05, local[2], groups, 0.5)
    # as the loop weighs the losses of the ranks: by their rows
    (loss * len(local[0]) * 2 / 9).backward()
    np.savez(f"{folder}/{rank}.npz", *(x.grad for x in local), loss=loss.detach())


def test_two_processes_equal_one(tmp_path):
    in_ranks(_rank, str(tmp_path))()
    whole = embeddings()
    groups = torch.tensor([0, 1, 2, 0, 3, 4, 5, 6, 1])
    loss = info_nce(*whole[:2], 0.05, whole[2], groups, 0.5)
    loss.backward()
    ranks = [np.load(tmp_path / f"{rank}.npz") for rank in (0, 1)]
    assert (2 * ranks[0]["loss"] + 7 * ranks[1]["loss"]) / 9 == pytest.approx(float(loss.detach()), rel=1e-12)
    for index, z in enumerate(whole):
        theirs = np.concatenate([rank[f"arr_{index}"] for rank in ranks]) / 2  # gradients are averaged over ranks
        np.testing.assert_allclose(theirs, z.grad.numpy(), rtol=1e-9, atol=1e-12)
