"""Training steps and encoding of ByT5 against transformers', the same weights and shapes, in one process and in turns.

    python bench/byt5.py [--rounds 10] [--threads 1]

Texts are of mixed lengths, as in a real batch, and once all of one length. Times are CPU seconds; the ratio is the median
over rounds of theirs by ours. Needs transformers.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor
from transformers import T5Config, T5ForConditionalGeneration

from papertrial.nn import pretrained
from papertrial.papers.byt5 import ByT5, Config

SHAPE = {"width": 256, "encoder_depth": 6, "decoder_depth": 2, "heads": 4, "head_width": 64, "hidden": 640}
#: of the 8 rows of a batch: source and target
LENGTHS = {
    "mixed": ([40, 60, 90, 128, 150, 200, 230, 256], [10, 12, 16, 20, 24, 30, 40, 48]),
    "equal": ([256] * 8, [48] * 8),
}


def twins() -> tuple[ByT5, T5ForConditionalGeneration]:
    """Ours and theirs with the same weights."""
    names = ("d_model", "num_layers", "num_decoder_layers", "num_heads", "d_kv", "d_ff")
    theirs = T5ForConditionalGeneration(
        T5Config(
            vocab_size=384,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            decoder_start_token_id=0,
            dropout_rate=0.0,
            use_cache=False,
            **dict(zip(names, SHAPE.values(), strict=True)),
        )
    )
    ours = ByT5(Config(**SHAPE))
    pretrained.fill(ours, theirs.state_dict(), theirs.config.to_dict())
    return ours, theirs


def rows(lengths: list[int]) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(3, 259, (len(lengths), max(lengths)), generator=generator)
    return ids * (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None])


def race(contestants: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Time both in every round, in changing order, after one round that does not count."""
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for turn in range(rounds + 1):
        for name in list(contestants)[:: 1 if turn % 2 else -1]:
            begun = time.process_time()
            contestants[name]()
            if turn:
                times[name].append(time.process_time() - begun)
    low, middle, high = statistics.quantiles([a / b for a, b in zip(*times.values(), strict=True)], n=4)
    return {
        **{f"{name}_ms": round(1e3 * statistics.median(taken), 1) for name, taken in times.items()},
        "ratio": round(middle, 2),
        "quartiles": [round(low, 2), round(high, 2)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    ours, theirs = twins()
    for batch, (long, short) in LENGTHS.items():
        source, target = rows(long), rows(short)
        mask, labels = (source != 0).long(), target.masked_fill(target == 0, -100)

        def our_step(source: Tensor = source, target: Tensor = target) -> None:
            ours.zero_grad()
            (ours.losses(source, target).sum() / (target != 0).sum()).backward()

        def their_step(source: Tensor = source, mask: Tensor = mask, labels: Tensor = labels) -> None:
            theirs.zero_grad()
            theirs(input_ids=source, attention_mask=mask, labels=labels).loss.backward()

        @torch.no_grad()
        def our_encoding(source: Tensor = source) -> None:
            ours.encode(source)

        @torch.no_grad()
        def their_encoding(source: Tensor = source, mask: Tensor = mask) -> None:
            theirs.encoder(input_ids=source, attention_mask=mask)

        for name, pair in (("step", (their_step, our_step)), ("encoding", (their_encoding, our_encoding))):
            found = race(dict(zip(("transformers", "papertrial"), pair, strict=True)), given.rounds)
            print(json.dumps({"batch": batch, "what": name, **found}), flush=True)


if __name__ == "__main__":
    main()
