"""Sentences a second: `embed` of papertrial against SentenceTransformer.encode on the same MiniLM, in turns, on one thread.

    python bench/simcse.py [--sentences 1000] [--rounds 3] [--threads 1] [--data pairs.csv]

Both sort by length and read text; seconds are those of the processor, the best of the rounds. Without --data the sentences
are those of Python's documentation. Answers must agree to 1e-4.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from papertrial.baselines import minilm
from papertrial.core.facts import Facts
from papertrial.core.task import Ragged, Split
from papertrial.data import open as open_data
from papertrial.nn import pretrained
from papertrial.papers.simcse import Config, SimCSE
from papertrial.tasks.text_classification import TASK


def sentences(source: str, count: int) -> list[str]:
    data = open_data(source)
    texts = [*data.first.texts(), *data.second.texts()] if data.kind == "pairs" else data.texts.texts()
    return list(dict.fromkeys(texts))[:count]


def timed(work: Callable[[], np.ndarray]) -> tuple[float, np.ndarray]:
    begin = time.process_time()
    found = work()
    return time.process_time() - begin, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sentences", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--data", default="python-pairs")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    from sentence_transformers import SentenceTransformer

    texts = sentences(given.data, given.sentences)
    model = SimCSE(Config(), minilm.build(minilm.Config(), Facts("text", len(texts)))).eval()
    theirs = SentenceTransformer(pretrained.find("minilm").source, device="cpu")
    theirs.max_seq_length = model.encoder.longest

    def ours() -> np.ndarray:
        found = TASK.embed(model, Split({"text": Ragged.of_texts(texts)}))
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    entrants = {
        "papertrial": ours,
        "sentence-transformers, batch 32": lambda: theirs.encode(texts, show_progress_bar=False),
        "sentence-transformers, batch 256": lambda: theirs.encode(texts, batch_size=256, show_progress_bar=False),
    }
    taken: dict[str, list[float]] = {name: [] for name in entrants}
    answers = {}
    for _ in range(given.rounds):
        for name, work in entrants.items():
            seconds, answers[name] = timed(work)
            taken[name].append(seconds)
    gap = max(float(np.abs(answer - answers["papertrial"]).max()) for answer in answers.values())
    print(f"{len(texts)} distinct sentences; largest difference of the unit vectors {gap:.1e}")
    for name, seconds in taken.items():
        print(f"{name}: {min(seconds):.2f} s, {len(texts) / min(seconds):.0f} sentences a second of processor time")
    if gap > 1e-4:
        raise SystemExit("the answers differ")


if __name__ == "__main__":
    main()
