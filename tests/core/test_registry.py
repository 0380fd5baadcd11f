from __future__ import annotations

import dataclasses

import pytest

from papertrial.core import registry
from papertrial.core.errors import PapertrialError
from papertrial.core.paper import Paper, claim


def test_a_literal_is_read_without_running_the_file(tmp_path):
    file = tmp_path / "vicreg.py"
    file.write_text(
        'import nothing_like_this\nPAPER = Paper(id="vicreg", title="T", kind="objective", idea="I.", tasks=("image_representation",))\n'
    )
    paper = registry.literal(file)
    assert paper.id == "vicreg"
    assert paper.tasks == ("image_representation",)


@pytest.mark.parametrize(
    "text",
    [
        "PAPER = Paper(id=name(), title='', kind='objective', idea='')",
        "PAPER = Paper(",
        "PAPER = Paper(id='a', colour='red')",
    ],
)
def test_a_file_that_is_no_paper_is_refused_by_name(tmp_path, text):
    file = tmp_path / "odd.py"
    file.write_text(text)
    with pytest.raises(PapertrialError, match=r"odd\.py"):
        registry.literal(file)


def test_a_file_without_a_paper_is_passed_over(tmp_path):
    (tmp_path / "shared.py").write_text("x = 1\n")
    assert registry.literal(tmp_path / "shared.py") is None


def test_the_shelf():
    assert {"mlp_mixer", "barlow_twins", "rtdl"} <= set(registry.papers())
    assert "resnet" in registry.entries()
    assert "resnet" not in registry.papers()


def test_names_are_answered():
    with pytest.raises(PapertrialError, match="did you mean 'mlp_mixer'"):
        registry.find("mlp_mixr")
    with pytest.raises(PapertrialError, match="not on the shelf yet"):
        registry.find("asymmetric_self_play")
    with pytest.raises(PapertrialError, match="no variant"):
        registry.method("mlp_mixer:XXL")
    assert registry.method("mlp_mixer:B/16").slug == "mlp_mixer-B-16"


def test_a_missing_extra_is_one_line_with_the_install_command(monkeypatch):
    real = registry.importlib.util.find_spec
    monkeypatch.setattr(
        registry.importlib.util, "find_spec", lambda name, *rest: None if name == "catboost" else real(name, *rest)
    )
    with pytest.raises(PapertrialError, match=r"pip install 'papertrial\[tabular\]'"):
        registry.load("catboost")


def test_kinds_are_checked():
    with pytest.raises(ValueError, match="kind"):
        Paper(id="a", title="", kind="poem", idea="")
    with pytest.raises(ValueError, match="claim kind"):
        claim("x", where="y", kind="hope")


@pytest.mark.parametrize("name", sorted(registry.entries()))
def test_a_paper_offers_the_techniques_its_literal_names(name):
    offered = getattr(registry.load(name), "techniques", {})
    assert tuple(offered) == registry.entries()[name].paper.techniques
    for technique in offered.values():
        assert all(field.metadata.get("where") for field in dataclasses.fields(technique))
