"""How features are judged: a linear probe, and the nearest neighbours."""

from __future__ import annotations

import warnings
from collections.abc import Mapping

import numpy as np
import torch

_CHUNK = 512


def fit_probe(
    features: np.ndarray, labels: np.ndarray, classes: int, penalty: float = 1.0, iterations: int = 300
) -> dict[str, np.ndarray]:
    """Logistic regression (L2, C = penalty) on standardised features (N, width); a class without examples gets probability 0."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    mean, std = features.mean(0, dtype=np.float64), features.std(0, dtype=np.float64)
    std = np.where(std > 1e-6 * (np.abs(mean) + 1e-6), std, 1.0)
    weight, bias = np.zeros((classes, features.shape[1])), np.full(classes, -100.0)
    present = np.unique(labels)
    if len(present) == 1:
        bias[present] = 0.0
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # a probe stopped early is still a probe
            found = LogisticRegression(C=penalty, max_iter=iterations).fit((features - mean) / std, labels)
        two = len(present) == 2
        weight[present] = np.concatenate([0 * found.coef_, found.coef_]) if two else found.coef_
        bias[present] = np.concatenate([[0.0], found.intercept_]) if two else found.intercept_
    return {
        name: value.astype(np.float32)
        for name, value in (("mean", mean), ("std", std), ("weight", weight), ("bias", bias))
    }


def probe_outputs(probe: Mapping[str, np.ndarray], features: np.ndarray) -> np.ndarray:
    """Probabilities (N, classes), float64."""
    standardised = (features.astype(np.float64) - probe["mean"]) / probe["std"]
    return softmax(standardised @ probe["weight"].T.astype(np.float64) + probe["bias"])


def nearest(
    bank: np.ndarray, labels: np.ndarray, queries: np.ndarray, classes: int, k: int = 20, temperature: float = 0.07
) -> np.ndarray:
    """Weighted k-NN votes (N, classes): each of the k nearest by cosine votes with exp(cosine / temperature) (1805.01978)."""
    keys = torch.nn.functional.normalize(torch.from_numpy(np.asarray(bank, dtype=np.float32)), dim=1)
    asked = torch.nn.functional.normalize(torch.from_numpy(np.asarray(queries, dtype=np.float32)), dim=1)
    owners, votes = torch.from_numpy(np.asarray(labels)), torch.zeros(len(asked), classes)
    for start in range(0, len(asked), _CHUNK):
        cosine, index = (asked[start : start + _CHUNK] @ keys.T).topk(min(k, len(keys)), dim=1)
        votes[start : start + _CHUNK].scatter_add_(1, owners[index], (cosine / temperature).exp())
    return votes.numpy()


def softmax(logits: np.ndarray) -> np.ndarray:
    """Over the last of two axes."""
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)
