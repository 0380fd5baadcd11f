"""What packing saves: a small BERT and a causal byte model on batches of texts, padded and packed, in turns, on one thread.

    python -m bench.packing [--rounds 5] [--threads 1]

Seconds are those of the processor, medians of the rounds. `similar` is how alike in length the rows of a group must be
(papertrial.nn.packing.SIMILAR): 1 attends to rows of one length at a time, 0 to all rows as one padded batch.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable

import torch
from torch import Tensor, nn

from bench.harness import in_turns, seconds, start
from papertrial.nn import packing
from papertrial.nn.mlp import GatedMlp
from papertrial.nn.transformer import Decoder, Encoder, Ids, bert_layout, t5_layout

VOCABULARY = 1000
SIMILAR = (1.0, 0.8, 0.7, 0.6, 0.0)


def lengths(kind: str, rows: int) -> Tensor:
    """Tokens of each row: sentences of 5 to 50 words, paragraphs with a long tail, or rows of nearly one length."""
    generator = torch.Generator().manual_seed(0)
    if kind == "sentences":
        return (torch.rand(rows, generator=generator).square() * 45 + 5).long()
    if kind == "paragraphs":
        return (torch.randn(rows, generator=generator) * 0.8 + 5).exp().clamp(8, 1000).long()
    return torch.randint(28, 33, (rows,), generator=generator)


def batch(sizes: Tensor) -> Tensor:
    ids = torch.randint(1, VOCABULARY, (len(sizes), int(sizes.max())), generator=torch.Generator().manual_seed(1))
    return ids.masked_fill(torch.arange(ids.shape[1]) >= sizes[:, None], 0)


def models() -> dict[str, tuple[nn.Module, str, int]]:
    """Module, texts and rows."""
    bert = Encoder(Ids(VOCABULARY), bert_layout(384, 3, 12, 1536, dropout=0.0), embed_norm=True)
    gated = t5_layout(256, 2, 4, 64, lambda layer: GatedMlp(256, 512), causal=True)
    return {
        "bert, sentences": (bert, "sentences", 64),
        "bert, nearly one length": (bert, "even", 64),
        "causal t5, paragraphs": (Decoder(Ids(VOCABULARY), gated), "paragraphs", 16),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    start(given.threads)
    clock = seconds(torch.device("cpu"))
    for name, (model, kind, count) in models().items():
        sizes = lengths(kind, count)
        ids = batch(sizes)
        print(
            f"{name}: {count} rows of up to {ids.shape[1]}, {1 - float(sizes.float().mean()) / ids.shape[1]:.0%} padding"
        )
        for train in (False, True):

            def work(packed: bool, model: nn.Module = model, ids: Tensor = ids, train: bool = train) -> None:
                with torch.set_grad_enabled(train):
                    rows = packing.rows_of(ids != 0, packed)
                    x = model.stack(model.embed(rows.pack(ids), model.stack.position.embed(rows.at)), rows)
                    if train:
                        x.square().mean().backward()

            def packed_at(similar: float, work: Callable[[bool], None] = work) -> Callable[[], None]:
                def once() -> None:
                    packing.SIMILAR = similar
                    work(True)

                return once

            contestants = {"padded": lambda work=work: work(False), **{str(each): packed_at(each) for each in SIMILAR}}
            times = in_turns(contestants, clock, given.rounds)
            padded, *packed = (statistics.median(times[name]) for name in contestants)
            found = [f"padded {padded:.3f} s"]
            found += [
                f"similar {similar}: {taken:.3f} s ({padded / taken:.1f} times)"
                for similar, taken in zip(SIMILAR, packed, strict=True)
            ]
            print("  forward and backward" if train else "  forward", *found, sep="; ")


if __name__ == "__main__":
    main()
