"""The path decomposition against a loop over all paths, as the equation reads; there is no package for it."""

from __future__ import annotations

import itertools

from torch import Tensor

from bench.harness import Case, Race, Side
from papertrial.papers.rank_collapse import path_terms

HEADS, TOKENS, WIDTH = 3, 32, 32


def paths(case: Case) -> tuple[Side, Side]:
    layers = case.size
    x = case.randn(TOKENS, WIDTH)
    maps = [case.randn(HEADS, TOKENS, TOKENS).softmax(-1) for _ in range(layers)]
    weights = [case.randn(HEADS, WIDTH, WIDTH) / WIDTH**0.5 for _ in range(layers)]

    def loop() -> Tensor:
        """A path goes through one head of each layer, or passes it by."""
        terms = x.new_zeros(layers + 1, TOKENS, WIDTH)
        for path in itertools.product(range(HEADS + 1), repeat=layers):
            out = x
            for layer, head in enumerate(path):
                if head < HEADS:
                    out = maps[layer][head] @ out @ weights[layer][head]
            terms[sum(head < HEADS for head in path)] += out
        return terms

    return Side(lambda: path_terms(x, maps, weights, skip=True)), Side(loop)


RACES = [
    Race(
        f"path decomposition, {HEADS} heads",
        "a loop over paths",
        paths,
        {f"{layers} layers": layers for layers in (2, 3, 4, 6)},
        dtypes=("float32",),
        compiled=False,
    )
]
