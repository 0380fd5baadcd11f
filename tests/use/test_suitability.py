"""What `look` says of tasks and papers: all that fit, those that nearly do, and the rest only when asked."""

import numpy as np

import papertrial as pt
from papertrial.core import registry
from papertrial.use.suitability import suits


def test_every_task_and_paper_has_its_answer():
    found = suits(pt.open("breast_cancer").look())
    assert found.tasks.keys() == registry.tasks().keys() and found.papers.keys() == registry.papers().keys()
    assert [name for name, reason in found.tasks.items() if reason == ""] == ["tabular"]
    assert found.papers["rtdl"] == "" and "trains nothing" in found.papers["rasp"]


def test_near_ones_take_such_data():
    images = np.random.default_rng(0).integers(0, 255, (40, 8, 8), np.uint8)
    found = suits(pt.open(images).look())
    assert found.near_tasks.get("image_classification")
    assert "tabular" not in found.near_tasks
    assert found.near_papers["mlp_mixer"] and "labels" in found.near_papers["mlp_mixer"]
    assert "rtdl" not in found.near_papers and "rank_collapse" not in found.near_papers


def test_the_command_says_why_when_asked(papertrial):
    _, short, _ = papertrial("look", "breast_cancer")
    _, long, _ = papertrial("look", "breast_cancer", "--all")
    assert "list them with --all" in short and "it takes images" not in short
    assert "list them with --all" not in long and "it takes images" in " ".join(long.split()) and "declines" in long
