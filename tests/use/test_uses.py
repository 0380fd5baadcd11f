"""Every command that is offered for a trained model runs with it."""

from __future__ import annotations

import json
import shlex

import pytest
from small_runs import asked, data, labelled, prose, run
from small_runs import folder as scratch

import papertrial as pt
from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.use.uses import commands, of_card

OFFERED = {
    "linear": ["predict", "evaluate", "export"],
    "majority": ["predict", "evaluate"],
    "rtdl": ["predict", "embed", "export"],
    "barlow_twins": ["predict", "embed", "export"],
    "text_transformer": ["predict", "embed", "export"],
    "simcse:pairs": ["predict", "embed", "export"],
    "language": ["evaluate", "write", "export"],
    "writer": ["predict", "answer"],
    "retriever": ["predict", "embed", "export"],
}


def tried(papertrial, typed, on, export=True):
    """Each of the commands, with data in the place of DATA and files in the working folder."""
    for line in typed:
        words = [str(on) if word == "DATA" else word for word in shlex.split(line)[1:]]
        if words[0] == "export" and not export:
            continue
        more = {"predict": ["--out", "a.csv"], "embed": ["--out", "f.npy"], "export": ["--out", "m.onnx"]}
        more["generate"] = ["--out", "drawn", "--samples", "1"] if len(words) == 2 else ["--length", "3"]
        code, _, err = papertrial(*words, *more.get(words[0], []))
        assert code == 0, (line, err)


@pytest.mark.parametrize("name", OFFERED)
def test_what_is_offered_runs(name, papertrial):
    model = run(name)
    assert model.card["uses"] == OFFERED[name]
    typed = commands(of_card(model.card), model.folder)
    tried(papertrial, typed, data(name), export=False)  # test_export does that with each of them


def test_an_objective_without_labels_has_features_alone(papertrial, tmp_path):
    import numpy as np

    np.save(tmp_path / "bare.npy", np.random.default_rng(0).integers(0, 256, (40, 8, 8), np.uint8))
    out = tmp_path / "bare"
    words = ("--backbone", "resnet", "--recipe", "tiny", "--budget", "1steps", "--out", out, "--quiet")
    code, said, err = papertrial("fit", "barlow_twins", "--data", tmp_path / "bare.npy", *words)
    assert code == 0, err
    assert said.splitlines()[-2:] == [
        f"next        papertrial embed {out} DATA",
        f"            papertrial report {out}    papertrial export {out} --to onnx",
    ]


def test_a_run_from_before_is_offered_what_all_have():
    assert commands(of_card({}), "a b") == ["papertrial evaluate 'a b' DATA"]


_MADE = {
    "tabular": "iris",
    "language_modeling": prose,
    "retrieval": asked,
    "text_classification": labelled,
    "human_judgement": "python-outputs",
    "sentence_similarity": lambda: data("similar"),
    "text_to_text": labelled,
}
CASES = [
    (name, task)
    for name in registry.entries()
    for task in (() if registry.paper(name).refusal else registry.paper(name).tasks)
    if registry.paper(name).kind not in ("technique", "analysis")
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "task"), CASES, ids=[f"{name}-{task}" for name, task in CASES])
def test_what_is_offered_runs_for_the_whole_shelf(name, task, papertrial):
    made = _MADE.get(task, "digits")
    on = made() if callable(made) else made
    out = scratch() / f"{name}-{task}"
    backbone = {
        "images": "resnet",
        "text": "text_transformer",
        "pairs": "text_transformer",
        "collection": "text_transformer",
    }
    kind = registry.task(task).kind
    more = {"backbone": backbone[kind]} if registry.paper(name).kind == "objective" and kind in backbone else {}
    steps = registry.paper(name).kind != "estimator"
    try:
        model = pt.fit(
            name, on, task=task, recipe="tiny", budget="2steps" if steps else "1trials", out=out, progress=False, **more
        )
    except PapertrialError as error:
        pytest.skip(str(error))
    tried(papertrial, commands(of_card(model.card), model.folder), on, export=True)
    assert json.loads((out / "card.json").read_text())["uses"] == model.card["uses"]
