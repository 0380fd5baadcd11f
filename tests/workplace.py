"""The folder in which the commands of the documentation are typed: a little of each kind of data, under the names that it uses."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
from PIL import Image


def furnish(folder: Path) -> None:
    """Write the data into `folder`, the same each time."""
    _photos(folder)
    _table(folder)
    _texts(folder)
    _collection(folder)
    _outputs(folder)


def _photos(folder: Path) -> None:
    from sklearn.datasets import load_digits

    digits = load_digits()
    names = {0: "cat", 1: "dog"}
    chosen = [place for place, label in enumerate(digits.target) if label in names]
    captions = []
    for count, place in enumerate(chosen[:150]):
        picture = Image.fromarray((digits.images[place] * 15.9).astype(np.uint8)).convert("RGB")
        name = names[int(digits.target[place])]
        path = folder / ("photos" if count < 120 else "more_photos") / name / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        if count < 60:
            captioned = folder / "captioned" / f"{place}.png"
            captioned.parent.mkdir(exist_ok=True)
            picture.save(captioned)
            captions.append(
                {"image": captioned.name, "caption": f"a {'red' if count % 3 else 'blue'} {name} number {count}"}
            )
    _lines(folder / "captioned" / "captions.jsonl", captions)


def _table(folder: Path) -> None:
    rng = np.random.default_rng(0)
    age, calls, spent = rng.integers(18, 80, 320), rng.poisson(3, 320), rng.gamma(2.0, 20.0, 320).round(2)
    plan = rng.choice(["basic", "plus", "pro"], 320)
    churned = np.where(calls - spent / 30 + (plan == "basic") + rng.normal(0, 1, 320) > 2.5, "yes", "no")
    rows = [
        {"age": int(a), "calls": int(c), "spent": float(s), "plan": str(p), "churned": str(y)}
        for a, c, s, p, y in zip(age, calls, spent, plan, churned, strict=True)
    ]
    _csv(folder / "customers.csv", rows[:220])
    _csv(folder / "labelled.csv", rows[220:270])
    _csv(folder / "new_customers.csv", [{k: v for k, v in row.items() if k != "churned"} for row in rows[270:]])
    _csv(
        folder / "table.csv",
        [{**{k: v for k, v in row.items() if k != "churned"}, "y": row["churned"]} for row in rows],
    )


_GOOD = ("a lovely film that I would watch again", "the food was fresh and the people kind", "works well and is quick")
_BAD = ("a dull film that never ends", "cold food and nobody at the till", "broke after a day and is slow")


def _texts(folder: Path) -> None:
    reviews = [
        {"text": f"{(_GOOD if place % 2 else _BAD)[place % 3]}, visit {place}", "label": "good" if place % 2 else "bad"}
        for place in range(80)
    ]
    _csv(folder / "reviews.csv", reviews)
    story = "Once upon a time a small model read many books, and learnt how each of them goes on. "
    for name in ("corpus", "mine"):
        (folder / name).mkdir(exist_ok=True)
        for place in range(6):
            text = "".join(f"{story}Chapter {place}.{line} of {name}. " for line in range(20))
            (folder / name / f"{place}.txt").write_text(text, encoding="utf-8")
    (folder / "corpus.txt").write_text("\n".join(f"{story}Line {line}." for line in range(120)), encoding="utf-8")
    _csv(
        folder / "pairs.csv",
        [{"question": f"what is {n} and {n + 1}?", "answer": f"it is {2 * n + 1}"} for n in range(80)],
    )


def _collection(folder: Path) -> None:
    words = (
        "attention",
        "contrastive learning",
        "diffusion",
        "boosted trees",
        "negatives",
        "tokens",
        "tables",
        "images",
    )
    documents = [
        {"id": f"2101.{n:05}", "title": f"On {words[n % 8]}", "abstract": f"We study {words[n % 8]} with {words[(n + n // 8 + 1) % 8]}, part {n}."}
        for n in range(64)
    ]  # fmt: skip
    _lines(folder / "papers.jsonl", documents)
    beir = folder / "beir"
    (beir / "qrels").mkdir(parents=True, exist_ok=True)
    _lines(beir / "corpus.jsonl", [{"_id": d["id"], "title": d["title"], "text": d["abstract"]} for d in documents])
    queries = [{"_id": f"q{n}", "text": f"{words[n % 8]} and {words[(n + n // 8 + 1) % 8]} {n}"} for n in range(48)]
    _lines(beir / "queries.jsonl", queries)
    for split, part in (("train", queries[:32]), ("test", queries[32:])):
        rows = [f"{query['_id']}\t{documents[int(query['_id'][1:])]['id']}\t1" for query in part]
        text = "\n".join(["query-id\tcorpus-id\tscore", *rows])
        (beir / "qrels" / f"{split}.tsv").write_text(text + "\n", encoding="utf-8")


def _outputs(folder: Path) -> None:
    for name in ("ours", "theirs"):
        rows = [{"item": n, "source": f"a long text, number {n}", "output": f"{name} says {n}"} for n in range(6)]
        _lines(folder / f"{name}.jsonl", rows)
    answers = [
        {
            "item": str(n),
            "system": system,
            "rater": f"r{rater}",
            "question": "quality",
            "value": (n + rater + place) % 5 / 4,
        }
        for n in range(12)
        for rater in range(4)
        for place, system in enumerate(("ours", "theirs"))
    ]
    _lines(folder / "answers.jsonl", answers)
    _csv(
        folder / "judged.csv",
        [
            {
                "system": f"s{s}",
                "reference": f"the sum is {n} today",
                "output": " ".join(["the sum is", str(n), "today"][: 3 - s % 3]),
                "score": 3 - s % 3,
            }
            for n in range(30)
            for s in range(3)
        ],
    )


def _csv(path: Path, rows: list[dict]) -> None:
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def _lines(path: Path, rows: list[dict]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
