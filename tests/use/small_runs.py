"""Small trained runs that the tests of this folder share, trained once per session."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

import papertrial as pt

SMALL_BYT5 = {
    "width": 16,
    "encoder_depth": 1,
    "decoder_depth": 1,
    "heads": 2,
    "head_width": 8,
    "hidden": 16,
    "longest": 48,
}
SMALL_RESNET = {"backbone.width": 8, "backbone.depths": "1,1"}
RUNS = {
    "mlp_mixer": ("mlp_mixer", "digits", {}),
    "resnet": ("resnet", "digits", {}),
    "vit": ("vit", "digits", {}),
    "nfnet": ("nfnet", "digits", {}),
    "barlow_twins": ("barlow_twins", "digits", {"backbone": "resnet", "settings": SMALL_RESNET}),
    "rtdl": ("rtdl", "mixed", {"settings": {"width": 16}}),
    "rtdl:resnet": ("rtdl:resnet", "wine", {}),
    "rtdl:mlp": ("rtdl:mlp", "diabetes", {}),
    "linear": ("linear", "mixed", {}),
    "linear:value": ("linear", "diabetes", {}),
    "majority": ("majority", "wine", {}),
    # of text; small, since a program is traced for each
    "text_transformer": ("text_transformer", "labelled", {}),
    "bpe": ("text_transformer", "labelled", {"settings": {"tokeniser": "bpe", "vocabulary": 300}}),
    "byt5": ("byt5", "labelled", {"task": "text_classification", "settings": SMALL_BYT5}),
    "switch": ("switch", "labelled", {"settings": {"eval_capacity": 1.0}}),
    "minilm": ("minilm:2", "labelled", {}),
    "simcse": ("simcse", "labelled", {"backbone": "text_transformer"}),
    "similar": ("text_transformer", "alike", {}),
    "simcse:pairs": ("simcse", "alike", {"backbone": "minilm:2", "settings": {"paired": "true"}}),
    "language": ("text_transformer", "prose", {"task": "language_modeling"}),
    "language:bpe": (
        "text_transformer",
        "prose",
        {"task": "language_modeling", "settings": {"tokeniser": "bpe", "vocabulary": 300}},
    ),
    "language:switch": ("switch", "prose", {"task": "language_modeling"}),
    "writer": ("byt5", "labelled", {"task": "text_to_text", "settings": SMALL_BYT5}),
    "retriever": ("word_vectors", "asked", {}),
    "reranker": ("lce_reranker", "asked", {}),
    "reranker:cross": ("lce_reranker", "asked", {"backbone": "text_transformer", "settings": {"longest": 48}}),
}


@cache
def folder():
    return Path(tempfile.mkdtemp(prefix="papertrial-tests-"))


@cache
def mixed():
    """A table with missing numbers, categories, and a shifted column."""
    import numpy as np
    import pandas as pd

    draw = np.random.default_rng(0)
    frame = pd.DataFrame(
        {
            "price": draw.gamma(2, 20, 200),
            "year": 1e4 + draw.integers(0, 30, 200),
            "city": draw.choice(["Oslo", "Rome", "Lima"], 200),
            "kind": draw.choice(["new", "used"], 200),
        }
    )
    frame["sold"] = np.where(frame["price"] + 20 * (frame["city"] == "Rome") + draw.normal(0, 9, 200) > 40, "yes", "no")
    frame.loc[draw.random(200) < 0.1, "price"] = np.nan
    frame.loc[draw.random(200) < 0.1, "city"] = None
    frame.to_csv(folder() / "mixed.csv", index=False)
    return folder() / "mixed.csv"


_NOUNS = ["river", "mountain", "letter", "engine", "garden", "winter", "captain", "bottle", "window", "harbour"]
_GOOD, _BAD = ["bright", "kind", "sweet", "brave"], ["dull", "cruel", "bitter", "grim"]


def sentences(count, seed=0):
    """(text, label): a line of nouns with adjectives of one class, some beyond ASCII, of very different lengths."""
    import numpy as np

    draw = np.random.default_rng(seed)
    for row in range(count):
        words = _GOOD if row % 2 else _BAD
        size = 1 + int(draw.integers(0, 12))
        found = [f"{draw.choice(words)} {draw.choice(_NOUNS)}" for _ in range(size)]
        yield f"{', '.join(found)} é{row}", "good" if row % 2 else "bad"


@cache
def labelled():
    """A table of sentences with labels."""
    import pandas as pd

    pd.DataFrame(sentences(90), columns=["text", "label"]).to_csv(folder() / "labelled.csv", index=False)
    return folder() / "labelled.csv"


@cache
def alike():
    """A table of pairs with scores."""
    import pandas as pd

    rows = [text for text, _ in sentences(120)]
    pairs = [(rows[i], rows[(i * 7 + i % 3) % 120], float(i % 6)) for i in range(120)]
    pd.DataFrame(pairs, columns=["sentence1", "sentence2", "score"]).to_csv(folder() / "alike.csv", index=False)
    return folder() / "alike.csv"


@cache
def prose():
    """A file of running text."""
    (folder() / "prose.txt").write_text("\n".join(text for text, _ in sentences(300, seed=3)) + "\n")
    return folder() / "prose.txt"


@cache
def asked():
    """A collection whose queries are beginnings of its documents."""
    import json

    place = folder() / "asked"
    (place / "qrels").mkdir(parents=True)
    rows = [text for text, _ in sentences(60, seed=5)]
    with open(place / "corpus.jsonl", "w") as documents, open(place / "queries.jsonl", "w") as queries:
        for row, text in enumerate(rows):
            documents.write(json.dumps({"_id": f"d{row}", "title": "", "text": text}) + "\n")
            queries.write(json.dumps({"_id": f"q{row}", "text": " ".join(text.split()[-4:])}) + "\n")
    judged = "".join(f"q{row}\td{row}\t1\n" for row in range(60))
    (place / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + judged)
    return place


MADE = {"mixed": mixed, "labelled": labelled, "alike": alike, "prose": prose, "asked": asked}


def data(name):
    """What a run was trained on."""
    source = RUNS[name][1]
    return MADE[source]() if source in MADE else source


@cache
def run(name):
    """The artifact of a run after a few steps."""
    method, source, more = RUNS[name]
    out = folder() / name.replace(":", "-")
    target = "sold" if source == "mixed" else None
    return pt.fit(method, data(name), target=target, recipe="tiny", budget="5steps", out=out, progress=False, **more)
