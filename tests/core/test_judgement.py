"""Judgements and templates: read, written, and refused in one line that names the place."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from papertrial.core.errors import DataError
from papertrial.core.judgement import Check, Judgements, Preference, Rating, Scale, template, templates

SOME = Judgements(
    ratings=(
        Rating("1", "t5", "ann", "quality", 0.75, "2024-05-01T10:00:00Z", 3.5),
        Rating('2, "two"', "bart\nlarge", "bo=b", "quality", 1 / 3),
    ),
    preferences=(Preference("1", "t5", "bart", "ann", "better", 0.5),),
    checks=(Check("ann", "quality", True), Check("bo=b", "quality", False)),
)


@pytest.mark.parametrize("name", ["some.jsonl", "some.csv"])
def test_what_is_written_is_read_back(tmp_path, name):
    path = SOME.write(tmp_path / "folder" / name)
    assert Judgements.read(path) == SOME
    packed = tmp_path / f"{name}.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert Judgements.read(packed) == SOME


_NAME = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1).filter(lambda text: text.strip() == text)


@given(st.lists(st.builds(Rating, _NAME, _NAME, _NAME, _NAME, st.floats(0, 1)), min_size=1, max_size=5))
def test_any_names_survive(tmp_path_factory, ratings):
    folder = tmp_path_factory.mktemp("judgements")
    for name in ("a.jsonl", "a.csv"):
        assert Judgements.read(Judgements(tuple(ratings)).write(folder / name)).ratings == tuple(ratings)


def test_a_file_from_elsewhere(tmp_path):
    path = tmp_path / "theirs.csv"
    path.write_text("bbcid,system,summary,is_factual,worker_id\n7,t5,a text,yes,w0\n7,bart,another,no,w0\n")
    columns = {"item": "bbcid", "rater": "worker_id", "value": "is_factual"}
    read = Judgements.read(path, columns=columns, words={"yes": 1, "no": 0})
    assert read.ratings == (Rating("7", "t5", "w0", "quality", 1.0), Rating("7", "bart", "w0", "quality", 0.0))
    path.write_text(path.read_text() + "8,t5,a third,NULL,w0\n")
    assert Judgements.read(path, columns=columns, words={"yes": 1, "no": 0, "NULL": None}) == read
    with pytest.raises(DataError, match="line 4: the value 'NULL' is not a number"):
        Judgements.read(path, columns=columns, words={"yes": 1, "no": 0})
    likert = template().questions[0].scale.by_word
    path.write_text("item,system,rater,value\n7,t5,w0,strongly agree\n7,bart,w0,0.25\n")
    assert [rating.value for rating in Judgements.read(path, words=likert).ratings] == [1.0, 0.25]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"item": 1, "system": "a", "rater": "r", "value": 1}\n{"item": 1', "line 2: not JSON"),
        ("a.jsonl", "\n[1]\n", "line 2: a list"),
        ("a.jsonl", '{"item": 1, "system": "a", "rater": "r", "value": 3}', "line 1: a value of 3 is not between"),
        ("a.jsonl", '{"item": 1, "system": "a", "rater": "r", "value": NaN}', "line 1: a value of nan"),
        ("a.jsonl", '{"item": 1, "system": "a", "rater": "r", "value": 1, "seconds": -1}', "line 1: -1 seconds"),
        ("a.jsonl", '{"item": 1, "system": " ", "rater": "r", "value": 1}', "line 1: no system"),
        ("a.jsonl", '{"item": 1, "system": "a", "value": 1}', "line 1: a rating without rater"),
        ("a.jsonl", '{"kind": "ratings", "item": 1}', "did you mean 'rating'"),
        ("a.jsonl", '{"item": 1}', "no value, no outcome and no right; the columns are item"),
        ("a.jsonl", '{"rater": "r", "right": "maybe"}', "right is 'maybe', neither true nor false"),
        ("a.csv", "item,first,second,rater,outcome\n1,a,b,r,0.7\n", "line 2: 0.7 is not an outcome"),
        ("a.csv", "item,first,second,rater,outcome\n1,a,a,r,1\n", "line 2: 'a' is compared with itself"),
        ("a.csv", "item,system,rater,value\n1,a,r,good\n", "line 2: the value 'good' is not a number"),
        ("a.csv", "item,system,rater,value\n1,a,r,1,2\n", "line 2: more cells"),
        ("a.csv", 'item,system,rater,value\n"1,a,r,1\n', "line 2: unexpected end of data"),
        ("a.csv", "item,system,rater,value\n", "holds no judgements"),
        ("a.txt", "", "is not a file of judgements"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(tmp_path, name, content, said):
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(DataError) as error:
        Judgements.read(path)
    assert said in str(error.value) and name in str(error.value)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(DataError, match="there is no"):
        Judgements.read(tmp_path / "none.csv")
    (tmp_path / "latin.csv").write_bytes("item\n\xe9".encode("latin-1"))
    (tmp_path / "broken.csv.gz").write_bytes(b"no gzip")
    for name in ("latin.csv", "broken.csv.gz"):
        with pytest.raises(DataError, match="cannot be read"):
            Judgements.read(tmp_path / name)
    with pytest.raises(DataError, match=r"end the name in \.jsonl"):
        SOME.write(tmp_path / "some.xlsx")


def test_genies_scale_is_the_default():
    assert templates() == ("genie", "pairwise")
    genie = template()
    assert genie.name == "genie" and genie.kind == "rating" and genie.source and genie.guidelines
    assert genie.questions[0].scale.values == (1.0, 0.75, 0.5, 0.25, 0.0)
    pair = template("pairwise")
    assert pair.kind == "pair" and pair.questions[0].scale.values == (1.0, 0.5, 0.0)


def test_an_own_template(tmp_path):
    path = tmp_path / "mine.toml"
    question = '[[questions]]\nname = "true"\ntext = "True?"\nscale = { words = ["yes", "no"], values = [1, 0] }\n'
    path.write_text(question)
    mine = template(str(path))
    assert (mine.name, mine.kind, mine.questions[0].scale) == ("mine", "rating", Scale(("yes", "no"), (1.0, 0.0)))
    for content, said in [
        ("kind = [", "cannot be read as TOML"),
        ("", "no questions"),
        ('colour = "red"\n' + question, "a template has no 'colour'"),
        ('kind = "stars"\n' + question, "'stars' is not a kind of template"),
        (question + question, "two of one name"),
        (question.replace("[1, 0]", "[1]"), "2 words and 1 values"),
        (question.replace("[1, 0]", "[5, 1]"), "not between 0 and 1"),
        (question.replace('"no"', '"yes"'), "the same words"),
        ('kind = "pair"\n' + question.replace("[1, 0]", "[1, 0.2]"), "not worth 1, 0.5 or 0"),
        (question.replace('text = "True?"\n', ""), "text is missing"),
        (question.replace("scale = {", "scala = {"), "did you mean 'scale'"),
    ]:
        path.write_text(content)
        with pytest.raises(DataError) as error:
            template(str(path))
        assert said in str(error.value) and "mine.toml" in str(error.value)
    with pytest.raises(DataError, match="did you mean 'genie'"):
        template("geni")
    with pytest.raises(DataError, match="there is no"):
        template("none.toml")
