"""From a CSV of sentences to a verdict and to answers, as a user types it, and input that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

TEXTS = [f"{mood} film number {n} with a {mood} end" for n in range(60) for mood in ("brilliant", "dreadful")]
MOODS = ["good", "bad"] * 60


def test_from_reviews_to_a_verdict(papertrial, tmp_path):
    pd.DataFrame({"review": TEXTS, "mood": MOODS}).to_csv("reviews.csv", index=False)
    _, looked, _ = papertrial("look", "reviews.csv")
    assert "fits        text_classification" in looked and "English 100%" in looked
    code, fitted, _ = papertrial("fit", "tfidf", "--data", "reviews.csv", "--recipe", "tiny", "-q")
    assert code == 0 and "text_classification v1" in fitted
    pd.DataFrame({"id": [5, 6], "review": ["a dreadful end", "brilliant"]}).to_csv("new.csv", index=False)
    assert papertrial("predict", "runs/tfidf-reviews", "new.csv")[0] == 0
    assert pd.read_csv("predictions.csv")["prediction"].tolist() == ["bad", "good"]
    _, judged, _ = papertrial("evaluate", "runs/tfidf-reviews", "reviews.csv", "--json")
    assert json.loads(judged)["metrics"]["accuracy"] == 1
    assert papertrial("report", "runs/tfidf-reviews")[0] == 0
    page = (tmp_path / "runs/tfidf-reviews/report.html").read_text()
    assert "Training texts" in page and "with a dreadful end" in page
    code, compared, _ = papertrial(
        "compare", "tfidf", "--data", "reviews.csv", "--seeds", "2", "--recipe", "tiny", "--budget", "1trials", "-q",
        "--folds", "2",
    )  # fmt: skip
    assert code == 0 and "accuracy (higher is better)" in compared and "majority" in compared


def test_questions_with_short_answers(papertrial, tmp_path):
    """Pairs by their names; what answers in text is offered no export, which would be refused."""
    rows = [{"answer": n + 1, "question": f"what comes after {n}?"} for n in range(60)]
    Path("qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    looked = papertrial("look", "qa.jsonl")[1]
    assert "pairs of the columns 'question' and 'answer'" in looked and "fits        text_to_text" in looked
    code, fitted, err = papertrial(
        "fit", "byt5", "--data", "qa.jsonl", "--recipe", "tiny", "--budget", "2steps", "--out", "r", "-q"
    )
    assert code == 0, err
    assert fitted.splitlines()[-1].strip() == "papertrial report r" and 'generate r "a text to answer"' in fitted
    assert papertrial("export", "r", "--to", "onnx")[0] == 2
    assert papertrial("predict", "r", "qa.jsonl", "-o", "answers.csv")[0] == 0
    assert len(pd.read_csv("answers.csv")) == 60


def test_pairs_with_scores(papertrial, tmp_path):
    draw = np.random.default_rng(0)
    words = np.array(["sea", "hill", "wave", "rock", "ship", "goat"])
    rows = [(draw.permutation(words)[:4], draw.permutation(words)[:4]) for _ in range(120)]
    made = [(" ".join(a) + f" {n}", " ".join(b) + f" {n}", len({*a} & {*b}) / 4 * 5) for n, (a, b) in enumerate(rows)]
    pd.DataFrame(made).to_csv("pairs.csv", index=False, header=False)
    assert "fits        sentence_similarity" in papertrial("look", "pairs.csv")[1]
    _, fitted, _ = papertrial("fit", "tfidf", "--data", "pairs.csv", "-q", "--budget", "2trials", "--json")
    assert json.loads(fitted)["metrics"]["spearman"] > 0.5
    assert papertrial("predict", "runs/tfidf-pairs", "pairs.csv", "-o", "like.csv")[0] == 0
    assert len(pd.read_csv("like.csv")) == 120
    assert papertrial("report", "runs/tfidf-pairs")[0] == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["look", "koi8.md"], "encoding cannot be known; save it as UTF-8"),
        (["look", "blank.txt"], "no text but blanks"),
        (["look", "header.csv"], "has no rows"),
        (["look", "reviews.csv#bdy"], "no column 'bdy'; did you mean 'body'?"),
        (["fit", "tfidf", "--data", "one.csv"], "all labels are the same class"),
        (["fit", "mlp_mixer", "--data", "reviews.csv"], "it takes images"),
        (["fit", "tfidf", "--data", "iris"], "it takes texts"),
        (["fit", "tfidf", "--data", "reviews.csv", "--set", "terms=letters"], "there are no terms 'letters'"),
    ],
)
def test_input_that_cannot_be_used(papertrial, words, said):
    pd.DataFrame({"body": TEXTS, "mood": MOODS}).to_csv("reviews.csv", index=False)
    pd.DataFrame({"body": TEXTS, "mood": "good"}).to_csv("one.csv", index=False)
    with open("koi8.md", "wb") as stream:
        stream.write("Привет, это старая кодировка\n".encode("koi8-r"))
    with open("blank.txt", "w") as stream:
        stream.write("\n \n\n")
    with open("header.csv", "w") as stream:
        stream.write("text,label\n")
    code, _, err = papertrial(*words)
    assert code == 2 and said in err and len(err.strip().splitlines()) == 1


def test_sentences_alone_are_learned_from_and_embedded_but_not_judged(papertrial):
    lines = [
        f"the {a} {b} sat by the {c}" for a in ("old", "red", "shy") for b in ("cat", "dog") for c in ("sea", "fire")
    ]
    Path("lines.txt").write_text("\n".join(lines), encoding="utf-8")
    small = [word for pair in ("width=16", "depth=1", "heads=2") for word in ("--set", f"backbone.{pair}")]
    code, out, err = papertrial(
        *("fit", "simcse", "--data", "lines.txt", "--backbone", "text_transformer", *small),
        *("--budget", "2steps", "--out", "run", "-q"),
    )
    assert code == 0 and "nothing is judged" in out, err
    assert papertrial("embed", "run", "lines.txt", "--out", "vectors.npy")[0] == 0
    assert len(np.load("vectors.npy")) == len(lines)
    assert papertrial("report", "run")[0] == 0
    code, _, err = papertrial("predict", "run", "lines.txt")
    assert code == 2 and "give pairs" in err and err.count("\n") == 1
    code, _, err = papertrial("fit", "text_transformer", "--data", "lines.txt", "--task", "sentence_similarity")
    assert code == 2 and "there are none" in err
