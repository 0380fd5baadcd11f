"""Collections from every kind of file, and from files that are not as they should be."""

from __future__ import annotations

import gzip
import json

import numpy as np
import pytest

from papertrial.core.errors import DataError
from papertrial.data import open as open_data
from papertrial.data.collections import Collection
from papertrial.data.collections.bibtex import plain
from papertrial.data.collections.files import Document
from papertrial.use.choose import choose_task


def lines(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def beir(folder, qrels, corpus=None, queries=None, end=""):
    corpus = corpus or [{"_id": f"d{n}", "title": f"Title {n}", "text": f"text {n}"} for n in range(4)]
    lines(folder / f"corpus.jsonl{end}", corpus)
    lines(folder / f"queries.jsonl{end}", queries or [{"_id": f"q{n}", "text": f"query {n}"} for n in range(3)])
    (folder / "qrels").mkdir()
    for name, rows in qrels.items():
        body = "".join("\t".join(map(str, row)) + "\n" for row in rows)
        (folder / "qrels" / f"{name}.tsv").write_text(f"query-id\tcorpus-id\tscore\n{body}")
    return folder


def grades(data):
    return [
        {data.ids[row]: int(grade) for row, grade in zip(data.relevant[query], data.grade[query], strict=True)}
        for query in range(len(data.query))
    ]


@pytest.mark.parametrize("end", ["", ".gz"])
def test_a_beir_folder(tmp_path, end):
    qrels = {"train": [("q0", "d1", 2)], "dev": [("q1", "d0", 1), ("q1", "d2", 0)], "test": [("q2", "d3", 1)]}
    data = open_data(beir(tmp_path / "mine", qrels, end=end))
    assert (data.kind, data.name, data.given_split) == ("collection", "mine", True)
    assert data.ids.tolist() == ["d0", "d1", "d2", "d3"] and data.document(1) == Document("d1", "Title 1", "text 1")
    assert data.text.texts()[2] == "Title 2\ntext 2"
    assert data.part.tolist() == [0, 1, 2] and grades(data) == [{"d1": 2}, {"d0": 1, "d2": 0}, {"d3": 1}]
    assert data.labelled.all() and not data.notes
    look = data.look()
    assert look.numbers["documents"] == 4 and look.numbers["labelled"] == 3 and look.numbers["parts"] == [1, 1, 1]


def test_judgements_beside_the_corpus(tmp_path):
    qrels = {"train": [("q0", "d1", 2)], "test": [("q2", "d3", 1)]}
    folder = beir(tmp_path / "mine", qrels)
    (folder / "qrels" / "train.tsv").rename(folder / "qrels.tsv")
    (folder / "qrels" / "test.tsv").rename(folder / "qrels.test.tsv")
    (folder / "notes.tsv").write_text("my\tnotes\n")
    data = open_data(folder)
    assert data.part[[0, 2]].tolist() == [0, 2] and grades(data)[0] == {"d1": 2} and grades(data)[2] == {"d3": 1}
    assert any(note.startswith("notes.tsv is neither") for note in data.notes)


def test_judgements_that_name_what_is_not_there(tmp_path):
    qrels = {"test": [("q0", "d0", 1), ("q0", "ghost", 1), ("nobody", "d1", 1), ("q1", "phantom", 2)]}
    data = open_data(beir(tmp_path, qrels))
    assert grades(data) == [{"d0": 1}, {}, {}] and data.labelled.tolist() == [True, False, False]
    assert any("2 judgements of a document that is not there, such as 'ghost'" in note for note in data.notes)
    assert any("1 judgement of a query that is not there, such as 'nobody'" in note for note in data.notes)


def test_judgements_of_another_data_set(tmp_path):
    """The documents can be searched all the same; no method can be judged on them."""
    data = open_data(beir(tmp_path, {"test": [("x", "y", 1)]}))
    assert any("no judgement is about a query and a document" in note for note in data.notes)
    with pytest.raises(DataError, match=r"no task fits .*: retrieval: no query has a relevant document$"):
        choose_task(data)


def test_doubled_and_empty(tmp_path):
    corpus = [{"_id": "a", "text": "one"}, {"_id": "a", "text": "two"}, {"_id": "b", "title": "", "text": ""}]
    queries = [{"_id": "q", "text": "x"}, {"_id": "q", "text": "y"}, {"_id": "r", "text": "  "}]
    data = open_data(beir(tmp_path, {"test": [("q", "a", 1), ("q", "a", 3)]}, corpus, queries))
    assert data.text.texts() == ["one", ""] and data.query.texts() == ["x"] and grades(data) == [{"a": 3}]
    assert [note for note in data.notes if "id that is already taken" in note] and any(
        "without text" in n for n in data.notes
    )


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("q0\td0", "2 columns"),
        ("q0\td0\tgood", "not a whole number"),
        ("q0\td0\t1.5", "not a whole number"),
        ("q0\td0\tinf", "not a whole"),
    ],
)
def test_broken_judgements_name_the_line(tmp_path, row, words):
    folder = beir(tmp_path, {"test": [("q0", "d0", 1)]})
    with (folder / "qrels" / "test.tsv").open("a") as stream:
        stream.write(row + "\n")
    with pytest.raises(DataError, match=f"test.tsv, line 3: .*{words}"):
        open_data(folder)


def test_trecs_four_columns_and_parts_that_are_no_parts(tmp_path):
    folder = beir(tmp_path, {"train": [("q0", "d0", 1)]})
    (folder / "qrels" / "mine.tsv").write_text("q1 0 d2 1\nq2 Q0 d3 2\n")
    data = open_data(folder)
    assert grades(data) == [{"d0": 1}, {"d2": 1}, {"d3": 2}] and any("counts as train" in note for note in data.notes)


def test_validation_judgements_serve_as_the_test(tmp_path):
    data = open_data(beir(tmp_path, {"train": [("q0", "d0", 1)], "dev": [("q1", "d0", 1), ("q0", "d1", 1)]}))
    assert data.part.tolist() == [2, 2, 0] and any("serve as the test" in note for note in data.notes)
    assert any("in another part too" in note for note in data.notes)


def test_squad(tmp_path):
    paragraphs = [
        {
            "context": "Rome is old.",
            "qas": [{"id": "1", "question": "How old?"}, {"id": "2", "question": "What is old?"}],
        },
        {"context": "Rome is old.", "qas": [{"id": "3", "question": "Which city?"}]},
        {"context": "Paris.", "qas": []},
    ]
    (tmp_path / "dev.json").write_text(
        json.dumps({"version": "1.1", "data": [{"title": "City", "paragraphs": paragraphs}]})
    )
    data = open_data(tmp_path / "dev.json")
    assert data.text.texts() == ["City\nRome is old.", "City\nParis."]
    assert data.query_ids.tolist() == ["1", "2", "3"] and grades(data) == [{"1-1": 1}] * 3 and not data.given_split


@pytest.mark.parametrize(
    ("paragraph", "where"),
    [
        ({"context": "Rome."}, ""),
        ({"context": "Rome.", "qas": None}, ""),
        ({"context": "Rome.", "qas": 3}, "data.0.paragraphs.1.qas"),
        ({"context": None, "qas": []}, "data.0.paragraphs.1.context"),
        ({"context": "Rome.", "qas": [[]]}, "data.0.paragraphs.1.qas.0"),
        ([], "data.0.paragraphs.1"),
    ],
)
def test_squad_that_is_damaged_says_where(tmp_path, paragraph, where):
    asked = {"context": "Paris.", "qas": [{"id": 1, "question": "Which city?"}]}
    (tmp_path / "d.json").write_text(json.dumps({"data": [{"paragraphs": [asked, paragraph]}]}))
    if where:
        with pytest.raises(DataError, match=rf"d.json is not laid out as SQuAD is \({where}: "):
            open_data(tmp_path / "d.json")
    else:
        assert open_data(tmp_path / "d.json").query_ids.tolist() == ["1"]


def test_judged_sentences(tmp_path):
    for name, rows in (
        ("train", "q one,1,an answer\nq one,0,no answer"),
        ("test", 'q two,1,"an answer"\nq two,0,"x, y"'),
    ):
        (tmp_path / f"{name}.csv").write_text(f"qtext,label,atext\n{rows}\n")
    data = open_data(tmp_path)
    assert data.query.texts() == ["q two", "q one"] and data.part.tolist() == [2, 0]  # the files by name
    assert grades(data) == [{"d1": 1, "d2": 0}, {"d1": 1, "d3": 0}] and data.text.texts()[1] == "x, y"
    assert open_data(tmp_path / "train.csv", target="label").kind != "collection"


def test_real_collections(shared_data):
    cranfield = open_data(shared_data / "retrieval" / "cranfield")
    assert (len(cranfield.ids), len(cranfield.query), len(cranfield.grade.values)) == (1400, 225, 1612)
    assert set(cranfield.grade.values) == {1, 2, 3, 4} and any("2 documents without text" in n for n in cranfield.notes)
    assert len(open_data(shared_data / "qa" / "xquad" / "xquad.en.json").ids) == 240
    trec = open_data(shared_data / "retrieval" / "trec-qa")
    assert trec.given_split and np.bincount(trec.part[trec.labelled]).tolist() == [83, 78, 89]


# -- documents alone ---------------------------------------------------------------------------------------------------


def documents(path):
    data = Collection.from_path(path)
    return [data.document(row) for row in range(len(data.ids))], data.notes


def test_json_lines_by_the_usual_names(tmp_path):
    rows = [
        {"id": 7, "title": "A", "abstract": "about  it", "authors": ["X Y", "Z"]},
        {"pid": "p", "contents": "only text"},
        {"Title": "only a title"},
        {"id": "k", "text": "t", "authors_parsed": [["Doe", "Jo"]], "authors": [["Doe", "Jo", ""], {"name": "Li"}]},
    ]
    found, _ = documents(lines(tmp_path / "x.jsonl.gz", rows))
    assert found == [
        Document("7", "A", "about  it\nX Y, Z"), Document("p", "", "only text"), Document("3", "only a title", ""),
        Document("k", "", "t\nJo Doe, Li"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("line", "words"),
    [("{broken", "not JSON"), ("[1]", "list instead of an object"), ('{"a": 1}', "no field with text")],
)
def test_broken_json_lines_name_the_line(tmp_path, line, words):
    (tmp_path / "x.jsonl").write_text(f'{{"text": "fine"}}\n\n{line}\n')
    with pytest.raises(DataError, match=f"x.jsonl, line 3: .*{words}"):
        documents(tmp_path / "x.jsonl")


def test_deep_json_is_no_crash(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"text": ' + "[" * 100_000 + "\n")
    with pytest.raises(DataError, match="line 1"):
        documents(tmp_path / "x.jsonl")


def test_text_that_is_not_utf8_is_repaired(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"text": "caf\xe9"}\n{"text": "fine"}\n')
    found, notes = documents(tmp_path / "x.jsonl")
    assert found[0].text == "caf\ufffd" and any("1 line not in UTF-8" in note for note in notes)


@pytest.mark.slow
def test_a_line_of_50_megabytes(tmp_path):
    (tmp_path / "x.jsonl").write_text('{"id": "big", "text": "' + "word " * 10_000_000 + '"}\n{"text": "small"}\n')
    data = Collection.from_path(tmp_path / "x.jsonl")
    assert any("'big' has 50 MB" in note for note in data.notes)
    assert data.bm25.top("word", 5, data.documents["place"])[0].tolist() == [0]


def test_csv_and_json_lists(tmp_path):
    (tmp_path / "x.tsv").write_text('id\ttitle\ttext\n1\tOne\t"a\nb"\n')
    (tmp_path / "x.csv").write_text("name;content\nOne;a, b\n")
    (tmp_path / "x.json").write_text('[{"id": "1", "body": "b"}]')
    assert documents(tmp_path / "x.tsv")[0] == [Document("1", "One", "a\nb")]
    assert documents(tmp_path / "x.csv")[0] == [Document("2", "One", "a, b")]
    assert documents(tmp_path / "x.json")[0] == [Document("1", "", "b")]


def test_bibtex(tmp_path):
    (tmp_path / "x.bib").write_text(
        '@string{cvpr = "CVPR"}\n'
        "@article{he16,\n  title = {Deep {R}esidual Learning, {\\'e}tude},\n  author={He, K. and Zhang, X.},\n"
        '  journal = cvpr, year = 2016,\n  abstract = "Deeper, {and "so"} on."\n}\n'
        "@misc{bare, title={Only a title}}\n"
    )
    found, _ = documents(tmp_path / "x.bib")
    assert found[0].title == "Deep Residual Learning, étude" and "He, K. and Zhang, X. CVPR 2016" in found[0].text
    assert found[0].text.startswith("Deeper, and") and found[1] == Document("bare", "Only a title", "")
    (tmp_path / "y.bib").write_text("nothing")
    with pytest.raises(DataError, match="no BibTeX entry"):
        documents(tmp_path / "y.bib")


@pytest.mark.parametrize(
    ("tex", "text"),
    [
        (r"{\L}ukasiewicz, {\O}rsted, {\ss}", "Łukasiewicz, Ørsted, ß"),
        (r"Erd\H{o}s, P{\'a}l, Na{\"\i}ve, G\"odel, \c{c}", "Erdős, Pál, Naïve, Gödel, ç"),
        (r"A survey \cite{foo} of \citep[see][p. 3]{x} that", "A survey of that"),
        (r"Learning $\beta$-functions, $\Omega n$, $\alpha_i$", "Learning beta-functions, Omega n, alpha_i"),
        (r"\emph{great} {\sc GPT} \texttt{x_y} $\mathbb{R}^d$", "great GPT x_y R^d"),
        ("5% off, 50\\% more & so", "5% off, 50% more & so"),
        (r"\href{http://x}{a~link} --- \url{http://y}", "a link — http://y"),
        (r"\unknown{kept} too", "kept too"),
        ("open { brace", "open brace"),
        (r"\href{only one", "only one"),
        ("nothing  special\nhere", "nothing special here"),
    ],
)
def test_latex_becomes_what_is_typed_into_a_search(tex, text):
    assert plain(tex) == text


def test_no_bibtex_entry_is_lost_in_silence(tmp_path):
    (tmp_path / "x.bib").write_text(
        "text between entries\n@comment{@misc{not, title={an entry}}}\n"
        '@string{icml = "Proceedings of " # {ICML}}\n@string(short = icml)\n'
        '@inproceedings{a, title={One, two}, booktitle = icml # { 2020} # "#1", title={again}}\n'
        "@misc(b, title = {In parentheses})\n@misc{b, title={The same key}}\n@misc{, title={Without a key}}\n"
        "@misc{c, title = {never closed,\n@misc{d, title={Behind it}}\n"
    )
    found, notes = documents(tmp_path / "x.bib")
    assert [(document.id, document.title) for document in found] == [
        ("a", "One, two"),
        ("b", "In parentheses"),
        ("b (line 7)", "The same key"),
        ("4", "Without a key"),
        ("d", "Behind it"),
    ]
    assert "Proceedings of ICML 2020#1" in found[0].text
    assert [note.partition(": ")[2][:40] for note in notes] == [
        "left out 1 entry that cannot be read, a ",
        "1 entry with the key of an earlier one, ",
        "1 entry with a field twice, of which the",
    ]
    assert "line 9 ('@misc{c, title = {never closed,')" in notes[0]
    (tmp_path / "y.bib").write_text("@misc{c, title = {never closed")
    with pytest.raises(DataError, match=r"no BibTeX entry that can be read; not closed: line 1"):
        documents(tmp_path / "y.bib")


def test_a_folder_of_texts(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "one.md").write_text("# Heading\n\nBody")
    (tmp_path / "two.txt").write_text("x" * 200)
    (tmp_path / "picture.png").write_bytes(b"\x89PNG")
    (tmp_path / ".hidden.txt").write_text("secret")
    found, notes = documents(tmp_path)
    assert [(document.id, document.title) for document in found] == [("a/one.md", "Heading"), ("two.txt", "two.txt")]
    assert any("left out: 1 file that cannot be read as text" in note for note in notes)


@pytest.mark.parametrize("name", ["x.png", "empty.jsonl", "cut.jsonl.gz", "binary.txt", "x.json"])
def test_what_holds_no_documents(tmp_path, name):
    content = {"cut.jsonl.gz": gzip.compress(b'{"text": "a"}')[:-9], "binary.txt": b"\0\1", "x.json": b'{"a": 1}'}
    (tmp_path / name).write_bytes(content.get(name, b""))
    with pytest.raises(DataError) as caught:
        documents(tmp_path / name)
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="is not there"):
        documents(tmp_path / "nowhere")


def test_arxiv_metadata(shared_data):
    data = Collection.from_path(shared_data / "arxiv" / "arxiv-nlp-2019-2023.jsonl.gz")
    assert len(data.ids) == 3430 and data.document(0).title.startswith("Reinforcement Learning based Curriculum")


def test_the_same_content_has_the_same_fingerprint(tmp_path):
    def made(text="b", grade=1):
        return Collection("x", [Document("d", "a", text)], [("q", "c")], {0: [("q", "d", grade)]}).fingerprint

    assert made() == made() and len({made(), made(text="c"), made(grade=2)}) == 3
