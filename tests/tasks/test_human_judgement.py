"""Metrics of texts judged by people's scores: how data opens, the split, clustered intervals, and parity of the metrics."""

from __future__ import annotations

import csv
import gzip
import json

import numpy as np
import pytest
import torch
from scipy.stats import kendalltau, spearmanr
from torch.nn.functional import pad as nn_pad

from papertrial.core import registry
from papertrial.core.errors import DataError, Declined, PapertrialError
from papertrial.core.task import Ragged, Split
from papertrial.data import open as open_data
from papertrial.data.texts.judged import Judged
from papertrial.tasks._metrics import spearman_scores
from papertrial.use.artifact import Artifact
from papertrial.use.choose import choose_task
from papertrial.use.fit import fit

TASK = registry.task("human_judgement")
TEXTS = [
    ("the cat sat on the mat .", "the cat sat on a mat ."),
    ("A dog, barking loudly; ran!", "The dog ran while it was barking loudly."),
    ("rivers flow to the sea", "Rivers flow to the sea"),
    ("first line\nsecond line here", "second line here\nfirst line"),
    ("naïve café über alles", "naive cafe uber alles"),
    ("nothing in common", "utterly different words"),
    ("one", "one two three four five six"),
]


def rows(items: int = 30, seed: int = 0) -> list[dict]:
    """Outputs that lose some words of their reference; the score is about the share that is left."""
    rng = np.random.default_rng(seed)
    words = [word for text, _ in TEXTS for word in text.split()]
    found = []
    for item in range(items):
        reference = rng.choice(words, size=10)
        for system, kept in (("good", 0.9), ("fair", 0.6), ("poor", 0.3)):
            output = np.where(rng.random(10) < kept, reference, rng.choice(words, size=10))
            found.append(
                {
                    "item": f"i{item}", "system": system, "reference": " ".join(reference), "output": " ".join(output),
                    "score": float((output == reference).mean() + rng.normal(0, 0.1)),
                }
            )  # fmt: skip
    return found


def written(folder, table: list[dict], name: str = "judged.csv"):
    path = folder / name
    if name.endswith(".jsonl"):
        path.write_text("".join(json.dumps(row) + "\n" for row in table))
        return path
    with open(path, "w", newline="") as stream:
        writer = csv.DictWriter(stream, list(table[0]))
        writer.writeheader()
        writer.writerows(table)
    return path


# -- data -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["judged.csv", "judged.jsonl"])
def test_a_table_of_judged_outputs_is_recognised(tmp_path, name):
    data = open_data(written(tmp_path, rows(), name))
    assert isinstance(data, Judged) and data.kind == "judged" and data.systems == ("fair", "good", "poor")
    assert len(data) == 90 and len(np.unique(data.groups)) == 30 and np.isfinite(data.scores).all()
    page = data.look()
    assert page.numbers["systems"] == 3 and page.numbers["items"] == 30 and page.numbers["scored"] == 90
    assert dict(page.facts)["outputs"] == "90 of 3 systems for 30 items" and "judged" in dict(page.facts)
    assert choose_task(data).name == "human_judgement"
    assert any("higher is better" in note for note in page.notes)


def test_other_names_of_columns_and_several_raters(tmp_path):
    table = [
        {"Model": r["system"], "ref": r["reference"], "Hypothesis": r["output"], "rater": rater, "human_score": r["score"] + rater}
        for r in rows(10)
        for rater in (0, 2)
    ]  # fmt: skip
    data = open_data(written(tmp_path, table))
    assert isinstance(data, Judged) and len(data) == 30
    assert data.scores == pytest.approx([r["score"] + 1 for r in rows(10)])
    assert data.second.texts() == [r["output"] for r in rows(10)]
    assert len(np.unique(data.groups)) == 10  # by their references
    assert any("mean of its scores" in note for note in data.notes)


def test_tables_and_pairs_open_as_before(tmp_path):
    pairs = [{"first": r["reference"], "second": r["output"], "score": r["score"]} for r in rows(10)]
    assert open_data(written(tmp_path, pairs, "pairs.csv")).kind == "pairs"
    no_reference = [{key: r[key] for key in ("system", "output", "score")} for r in rows(10)]
    assert open_data(written(tmp_path, no_reference, "table.csv")).kind != "judged"
    named = written(tmp_path, rows(10), "judged.csv")
    assert open_data(f"{named}#reference,output").kind == "pairs"  # whoever names columns is obeyed


def test_scores_that_are_no_numbers_and_missing_ones(tmp_path):
    table = rows(10)
    for place, row in enumerate(table):
        row["score"] = ["good", "bad"][place % 2]
    with pytest.raises(DataError, match="are not numbers"):
        open_data(written(tmp_path, table))
    unscored = [{key: value for key, value in row.items() if key != "score"} for row in table]
    data = open_data(written(tmp_path, unscored))
    assert isinstance(data, Judged) and not np.isfinite(data.scores).any()
    assert "nobody has judged" in TASK.supports(data.look()).why
    assert "it takes outputs" in TASK.supports(open_data("python-pairs").look()).why


# -- the task ---------------------------------------------------------------------------------------------------


def test_items_stay_together_and_the_test_is_the_same_for_every_seed():
    data = open_data("python-outputs")
    first, second = TASK.prepare(data, 0), TASK.prepare(data, 1)
    assert np.array_equal(first.test["item"], second.test["item"])
    assert not np.array_equal(first.valid["item"], second.valid["item"])
    parts = [set(part["item"].tolist()) for part in (first.train, first.valid, first.test)]
    assert all(not a & b for place, a in enumerate(parts) for b in parts[place + 1 :])
    assert len(parts[2]) == 100 and first.test.examples == 300
    assert TASK.prepare(data, 0, fraction=0.5).train.examples < first.train.examples
    with pytest.raises(PapertrialError, match="fraction"):
        TASK.prepare(data, 0, fraction=2)


def test_a_given_split_is_kept(tmp_path):
    table = [{**row, "split": "test" if place >= 60 else "train"} for place, row in enumerate(rows())]
    prepared = TASK.prepare(open_data(written(tmp_path, table)))
    assert prepared.test.examples == 30 and len(np.unique(prepared.test["item"])) == 10


def test_scores_that_hardly_differ_still_split(tmp_path):
    table = rows(40)
    for place, row in enumerate(table):
        row["score"] = 1.0 if place % 3 else 0.0  # more than half have the best score
    assert TASK.prepare(open_data(written(tmp_path, table))).test.examples == 60


def test_correlations_and_their_influence_by_item():
    rng = np.random.default_rng(0)
    item = np.repeat(np.arange(60), 5)
    target = rng.normal(size=60)[item] + 0.3 * rng.normal(size=300)  # outputs of one item are alike
    values = target + rng.normal(size=60)[item]
    split = Split({"target": target.astype(np.float32), "item": item})
    found = TASK.score(values, split, {})
    assert found.metrics["spearman"] == pytest.approx(spearmanr(values, split["target"]).statistic)
    assert found.metrics["kendall"] == pytest.approx(kendalltau(values, split["target"]).statistic)
    assert found.per_example.shape == (300,) and found.per_example.mean() == pytest.approx(found.metrics["spearman"])
    alone = spearman_scores(values, target)
    width = {
        name: scores.intervals["spearman"][1] - scores.intervals["spearman"][0]
        for name, scores in (("items", found), ("rows", alone))
    }
    # against resampling whole items
    drawn = [
        spearmanr(values[rows], target[rows]).statistic
        for rows in (np.flatnonzero(item == 0)[None] + 5 * rng.integers(60, size=(300, 60, 1))).reshape(300, -1)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    assert width["items"] == pytest.approx(high - low, rel=0.25) and width["items"] > 1.5 * width["rows"]


def test_figures_of_systems_and_within_items():
    data = open_data("python-outputs")
    prepared = TASK.prepare(data)
    model = registry.method("length").module.build(None, prepared.facts)
    extra = TASK.extra_scores(model, prepared, 0)
    assert set(extra) == {"system_pearson", "system_spearman", "system_kendall", "within_items"}
    perfect = type("M", (), {"outputs": lambda self, split: split["target"]})()
    assert all(value == pytest.approx(1) for value in TASK.extra_scores(perfect, prepared, 0).values())
    constant = type("M", (), {"outputs": lambda self, split: np.ones(split.examples)})()
    assert all(value == 0 for value in TASK.extra_scores(constant, prepared, 0).values())
    with pytest.raises(Declined, match="no features"):
        TASK.embed(model, prepared.test)


# -- metrics ----------------------------------------------------------------------------------------------------


def split_of(pairs) -> Split:
    return Split(
        {"reference": Ragged.of_texts([r for r, _ in pairs]), "output": Ragged.of_texts([o for _, o in pairs])}
    )


def built(name: str, **settings):
    method = registry.method(name)
    return method.module.build(method.module.Config(**(method.overrides | settings)), None)


def test_bleu_is_sacrebleus():
    import sacrebleu

    pairs = [*TEXTS, ("", ""), ("a reference", ""), ("", "an output")]
    theirs = [sacrebleu.sentence_bleu(output, [reference]).score for reference, output in pairs]
    model = built("bleu")
    model.fit(split_of(pairs), split_of(pairs), None, None, 0, None)
    assert model.outputs(split_of(pairs)) == pytest.approx(theirs)
    assert (
        "eff:yes" in model.signature
        and "tok:13a" in model.signature
        and f"version:{sacrebleu.__version__}" in model.signature
    )
    with pytest.raises(PapertrialError, match="the setting tokenise is 'none such'"):
        built("bleu", tokenise="none such")


@pytest.mark.parametrize(
    ("name", "form"), [("rouge", "rougeL"), ("rouge:1", "rouge1"), ("rouge:2", "rouge2"), ("rouge:Lsum", "rougeLsum")]
)
def test_rouge_is_that_of_the_package(name, form):
    from rouge_score.rouge_scorer import RougeScorer

    scorer = RougeScorer([form], use_stemmer=True)
    pairs = [*TEXTS, ("", ""), ("a reference", ""), ("", "an output")]
    model = built(name)
    assert model.outputs(split_of(pairs)) == pytest.approx([scorer.score(r, o)[form].fmeasure for r, o in pairs])
    assert model.signature.startswith(f"{form}|f1|stem:yes|rouge-score:")
    with pytest.raises(PapertrialError, match="did you mean"):
        built("rouge", form="rougel")


@pytest.mark.parametrize("idf", [False, True])
def test_bertscore_is_its_equation(idf):
    """The sums written out, a text at a time, in float64, without padding."""
    model = built("bertscore", idf=idf, layers=2)
    split = split_of([*TEXTS, ("words", ""), ("", "words"), ("", "")])
    model.fit(split, split, None, None, 0, None)
    tokeniser, encoder = model.encoder.tokeniser, model.encoder
    held = [tokeniser.encode([text]).values[1:-1].tolist() for text in split["reference"].texts()]
    for row, found in enumerate(model.outputs(split)):
        vectors, weights = [], []
        for side in ("reference", "output"):
            ids = tokeniser.encode([split[side].texts()[row]]).values.astype(np.int64)
            with torch.no_grad():
                states = encoder.tokens(torch.from_numpy(ids)[None])[0, 1:-1].double()
            vectors.append((states / states.norm(dim=-1, keepdim=True)).numpy())
            count = [sum(token in some for some in held) for token in ids[1:-1].tolist()]
            weights.append(np.log((len(held) + 1) / (np.array(count) + 1)) if idf else np.ones(len(ids) - 2))
        (x, y), (w, v) = vectors, weights
        if not len(x) or not len(y) or not w.any() or not v.any():
            assert found == 0
            continue
        recall = sum(w[i] * max(x[i] @ y[j] for j in range(len(y))) for i in range(len(x))) / w.sum()
        precision = sum(v[j] * max(x[i] @ y[j] for i in range(len(x))) for j in range(len(y))) / v.sum()
        assert found == pytest.approx(2 * precision * recall / (precision + recall), abs=1e-5)


def test_matching_by_hand_and_its_gradient():
    from papertrial.baselines.bertscore import Side, matched

    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(2, *shape, dtype=torch.float64, generator=generator)

    def side(vectors, weights, padding=0):
        more = torch.full((2, padding, 3), 9.0, dtype=torch.float64)
        tokens = torch.arange(vectors.shape[1] + padding).expand(2, -1) < vectors.shape[1]
        return Side(torch.cat([vectors, more], 1), nn_pad(weights, (0, padding), value=5.0), tokens)

    x, y, w, v = random(4, 3), random(5, 3), random(4).abs(), random(5).abs()
    precision, recall, f = matched(side(x, w), side(y, v))
    swapped = matched(side(y, v), side(x, w))
    assert (
        torch.allclose(precision, swapped[1]) and torch.allclose(recall, swapped[0]) and torch.allclose(f, swapped[2])
    )
    assert torch.allclose(matched(side(x * 7, w), side(y, v))[2], f)  # length does not count
    assert matched(side(x, w), side(x, w))[2].tolist() == pytest.approx([1, 1])
    assert torch.allclose(matched(side(x, w, 3), side(y, v, 1))[2], f)  # nor does padding
    x.requires_grad_(), y.requires_grad_()
    assert torch.autograd.gradcheck(lambda x, y: matched(side(x, w), side(y, v)), (x, y))
    assert matched(side(x, w), side(y[:, :0], v[:, :0], 2))[2].tolist() == [0, 0]
    assert matched(side(x, 0 * w), side(y, v))[1].tolist() == [0, 0]


def test_length_knows_lengths_alone():
    found = built("length").outputs(split_of([("a b c d", "e f"), ("a b", "c d e f"), ("a", "b"), ("", ""), ("a", "")]))
    assert found.tolist() == [0.5, 0.5, 1.0, 1.0, 0.0]


def test_from_a_file_to_answers(tmp_path):
    path = written(tmp_path, rows())
    for name in ("bleu", "rouge", "bertscore:idf", "length"):
        artifact = fit(name, path, out=tmp_path / name, recipe="tiny", progress=False)
        found = artifact.evaluate(path).metrics["spearman"]
        assert found > (0.5 if name != "length" else -1)
        again = Artifact.load(tmp_path / name)
        assert again.evaluate(path).metrics["spearman"] == found
        unscored = [{key: value for key, value in row.items() if key != "score"} for row in rows(5, 1)]
        assert len(again.predict(written(tmp_path, unscored, "new.csv"))["prediction"]) == 15
    assert "signature" in json.loads((tmp_path / "bleu" / "estimator" / "bleu.json").read_text())
    with pytest.raises(Declined):
        fit("tfidf", path, out=tmp_path / "other", progress=False)


@pytest.mark.slow
def test_a_comparison_says_which_metric_agrees_with_people(papertrial):
    code, out, error = papertrial(
        "compare", "rouge", "--against", "length", "--data", "python-outputs", "--seeds", 2, "--no-worth"
    )
    assert code == 0, error
    assert "rouge helps on this data: spearman +" in out


def test_metrics_on_real_outputs_without_their_texts(shared_data):
    """The summaries of XSum came without references, but their metrics are known: the score of the task takes them."""
    file = shared_data / "human-eval" / "xsum-hallucination" / "eval_scores_xsum_summaries.csv.gz"
    with gzip.open(file, "rt") as stream:
        table = list(csv.DictReader(stream))
    item = np.unique([row["system_bbcid"].rpartition("_")[2] for row in table], return_inverse=True)[1]
    split = Split({"target": np.array([float(row["Faithful"]) for row in table], np.float32), "item": item})
    found = {
        name: TASK.score(np.array([float(row[name]) for row in table]), split, {})
        for name in ("R1", "BERTScore", "Entailment")
    }
    assert {name: round(scores.metrics["spearman"], 3) for name, scores in found.items()} == {
        "R1": 0.197, "BERTScore": 0.190, "Entailment": 0.431
    }  # fmt: skip
    assert found["Entailment"].intervals["spearman"][0] > found["R1"].intervals["spearman"][1]
