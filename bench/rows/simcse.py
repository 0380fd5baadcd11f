"""Sentence vectors against sentence-transformers: texts to vectors on MiniLM, the encoder alone, and the loss with its gradient."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from bench.harness import Case, Race, Side, inference
from papertrial.baselines import minilm
from papertrial.core.facts import Facts
from papertrial.core.task import Ragged, Split
from papertrial.data import open as open_data
from papertrial.nn import pretrained
from papertrial.nn.contrastive import info_nce
from papertrial.papers.simcse import Config, SimCSE
from papertrial.tasks.text_classification import TASK

WIDTH = 384


def sentences(count: int) -> list[str]:
    """Distinct ones of Python's documentation."""
    data = open_data("python-pairs")
    return list(dict.fromkeys([*data.first.texts(), *data.second.texts()]))[:count]


def encoding(case: Case) -> tuple[Side, Side]:
    from sentence_transformers import SentenceTransformer

    texts = sentences(case.size)
    model = case.place(SimCSE(Config(), minilm.build(minilm.Config(), Facts("text", len(texts))))).eval()
    theirs = SentenceTransformer(pretrained.find("minilm").source, device=str(case.device))
    theirs.max_seq_length = model.encoder.longest
    split = Split({"text": Ragged.of_texts(texts)})

    def ours() -> np.ndarray:
        found = TASK.embed(model, split)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    return Side(ours), Side(lambda: theirs.encode(texts, batch_size=64, show_progress_bar=False))


class TheirVectors(nn.Module):
    """The mean over tokens."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor) -> Tensor:
        mask = (ids != 0).to(self.model.dtype)[..., None]
        found = self.model(input_ids=ids, attention_mask=(ids != 0).long()).last_hidden_state
        return (found * mask).sum(1) / mask.sum(1)


def reading(case: Case) -> tuple[Side, Side]:
    from transformers import BertModel

    checkpoint = pretrained.find("minilm")
    ours = checkpoint.load()
    theirs = BertModel.from_pretrained(checkpoint.source, add_pooling_layer=False)
    lengths = (torch.rand(case.size).square() * 40 + 5).long()
    ids = torch.randint(1000, 20_000, (case.size, int(lengths.max())))
    ids = (ids * (torch.arange(ids.shape[1]) < lengths[:, None])).to(case.device)
    return inference(case, case.place(ours), ids), inference(case, case.place(TheirVectors(theirs)), ids)


def loss(case: Case) -> tuple[Side, Side]:
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss

    theirs = MultipleNegativesRankingLoss(None, scale=20.0)
    first, second = (case.randn(case.size, WIDTH).requires_grad_() for _ in range(2))
    calls = (
        case.ready(lambda a, b: info_nce(a, b, 0.05)),
        case.ready(lambda a, b: theirs.compute_loss_from_embeddings([a, b], None)),
    )

    def side(call) -> Side:
        def answer():
            first.grad = second.grad = None
            value = call(first, second)
            value.backward()
            return value, first.grad, second.grad

        return Side(answer)

    return side(calls[0]), side(calls[1])


RACES = [
    Race(
        "texts to vectors",
        "sentence-transformers",
        encoding,
        {f"{count} sentences": count for count in (16, 32, 64, 128)},
        dtypes=("float32",),
        compiled=False,
    ),
    Race(
        "ids to vectors",
        "transformers",
        reading,
        {f"{count} sentences": count for count in (8, 16, 32, 64)},
    ),
    Race(
        "loss and gradient",
        "sentence-transformers",
        loss,
        {f"{count} pairs": count for count in (64, 128, 256, 512)},
    ),
]
