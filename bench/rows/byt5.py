"""ByT5 against T5 of transformers: a training step, reading, and writing with a cache. Texts of mixed lengths, as in a batch."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bench.harness import Case, Race, Side, inference, training
from papertrial.core.task import Ragged
from papertrial.nn import pretrained
from papertrial.nn.decode import complete
from papertrial.papers.byt5 import ByT5, Config

SHAPE = {"width": 256, "encoder_depth": 6, "decoder_depth": 2, "heads": 4, "head_width": 64, "hidden": 640}
#: of the 8 rows of a batch, as shares of the longest
LENGTHS = (0.15, 0.25, 0.35, 0.5, 0.6, 0.8, 0.9, 1.0)


class Loss(nn.Module):
    """Mean nats of a target's token, and nothing of padding."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model


class OurLoss(Loss):
    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        return self.model.losses(source, target).sum() / (target != 0).sum()


class TheirLoss(Loss):
    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        labels = target.masked_fill(target == 0, -100)
        return self.model(input_ids=source, attention_mask=(source != 0).long(), labels=labels).loss


class TheirTokens(Loss):
    """(B, N, width) of the source, with zeros at padding, as ours."""

    def forward(self, source: Tensor) -> Tensor:
        found = self.model.encoder(input_ids=source, attention_mask=(source != 0).long()).last_hidden_state
        return found * (source != 0)[..., None]


class OurTokens(Loss):
    def forward(self, source: Tensor) -> Tensor:
        return self.model.tokens(source)


def twins() -> tuple[ByT5, nn.Module]:
    from transformers import T5Config, T5ForConditionalGeneration

    names = ("d_model", "num_layers", "num_decoder_layers", "num_heads", "d_kv", "d_ff")
    theirs = T5ForConditionalGeneration(
        T5Config(
            vocab_size=384, feed_forward_proj="gated-gelu", tie_word_embeddings=False, decoder_start_token_id=0,
            dropout_rate=0.0, use_cache=False, **dict(zip(names, SHAPE.values(), strict=True)),
        )
    )  # fmt: skip
    with torch.no_grad():
        theirs.lm_head.weight[:3] = 0  # neither writes padding, the end or the unknown
    ours = ByT5(Config(**SHAPE))
    pretrained.fill(ours, theirs.state_dict(), theirs.config.to_dict())
    return ours, theirs


def rows(case: Case, longest: int) -> Tensor:
    lengths = torch.tensor([max(1, round(share * longest)) for share in LENGTHS])
    ids = torch.randint(3, 259, (len(lengths), longest))
    return (ids * (torch.arange(longest) < lengths[:, None])).to(case.device)


def step(case: Case) -> tuple[Side, Side]:
    ours, theirs = (case.place(model) for model in twins())
    batch = rows(case, case.size), rows(case, case.size // 5)
    return (
        training(case, OurLoss(ours), *batch, loss=lambda out: out),
        training(case, TheirLoss(theirs), *batch, loss=lambda out: out),
    )


def reading(case: Case) -> tuple[Side, Side]:
    ours, theirs = (case.place(model) for model in twins())
    source = rows(case, case.size)
    return inference(case, OurTokens(ours), source), inference(case, TheirTokens(theirs), source)


SOURCE = 64


def writing(case: Case) -> tuple[Side, Side]:
    ours, theirs = (case.place(model).eval() for model in twins())
    source = rows(case, SOURCE)
    mask = (source != 0).long()
    sources = Ragged.of([row[row != 0].tolist() for row in source.cpu()], dtype=np.int64, pad=0)

    def our_texts() -> np.ndarray:
        return complete(ours, sources, case.size).padded()

    @torch.no_grad()
    def their_texts() -> Tensor:
        found = theirs.generate(
            source, attention_mask=mask, max_new_tokens=case.size, do_sample=False, use_cache=True, pad_token_id=0
        )
        return found[:, 1:]

    return Side(our_texts), Side(their_texts)


_BYTES = {f"8 x {longest} bytes": longest for longest in (64, 128, 256, 512)}

RACES = [
    Race("training step", "transformers", step, _BYTES),
    Race("reading", "transformers", reading, _BYTES),
    Race(
        f"writing after 8 x {SOURCE} bytes, cached",
        "transformers",
        writing,
        {f"8 x {length} bytes": length for length in (8, 16, 32, 64)},
        dtypes=("float32",),
        compiled=False,
    ),
]
