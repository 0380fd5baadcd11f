"""Texts and pairs from whatever people have, and what the facts page says of them."""

from __future__ import annotations

import gzip
import tarfile
import zipfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from papertrial.core.errors import DataError
from papertrial.core.task import Ragged
from papertrial.data import open as open_data
from papertrial.data.base import Look
from papertrial.data.languages import language
from papertrial.data.tables import Table
from papertrial.data.texts import Pairs, Texts, blank, same, utf8

FILMS = [
    f"{start} film about {about}, and the {who} is {how} in it"
    for start in ("A slow", "This", "Another long")
    for about in ("the war", "a family", "nothing at all", "the sea")
    for who in ("lead", "rest of the cast")
    for how in ("brilliant", "dull", "not at his best")
]
MOODS = ["good" if "brilliant" in film else "bad" for film in FILMS]


def frame(**more) -> pd.DataFrame:
    return pd.DataFrame({"review": FILMS, "mood": MOODS, **more})


# -- texts from files and folders -------------------------------------------------------------------------------


@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_lines_of_a_file_are_texts(tmp_path, pack):
    path = tmp_path / ("play.txt.gz" if pack is gzip.compress else "play.txt")
    path.write_bytes(pack("First line,\r\n\r\n   \nthe second; it is é.\nthird".encode()))
    data = open_data(path)
    assert isinstance(data, Texts) and data.unit == "line"
    assert data.texts.texts() == ["First line,", "the second; it is é.", "third"]
    assert data.names.tolist() == [1, 4, 5]
    assert data.documents.texts() == ["First line,\n\n   \nthe second; it is é.\nthird"]
    assert not data.given_split and (data.labels == -1).all()


def test_a_column_that_is_called_label_and_gives_none_is_told_of(tmp_path):
    rows = "".join(f"the sentence that has number {n} here,c{n}\n" for n in range(40))
    (tmp_path / "each.csv").write_text("text,label\n" + rows)
    data = open_data(tmp_path / "each.csv")
    assert data.kind == "text" and not data.class_names
    assert any("column 'label' gives no labels: " in note for note in data.notes), data.notes


VERSE = (
    "It was late, and the house was quiet.\nHe looked up, or so it seemed.\nNothing moved, nothing spoke,\nuntil day.\n"
)
SPACED = "39, State-gov, 77516\n50, Private, 83311\n38, Private, 215646\n"
DATED = "On May 3, 1999, the river rose higher than before.\nOn May 9, 1999, the river fell back to its bed.\n"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (VERSE * 9, "text"),
        ("It was late; nobody spoke of it.\nShe went out; the door stood open.\n" * 9, "text"),
        ("When the rain came, they left.\n" * 30, "text"),
        (DATED * 9, "text"),
        ("Doe, John\nRoe, Jane\nPoe, Edgar\n", "text"),
        (SPACED * 9, "table"),
        ("name,age\nDoe,31\nRoe,44\n", "table"),
        (
            "text,label\n" + "".join(f'"a line, with words {n}",{n % 2}\n' for n in range(20)),
            "text",
        ),  # a table of texts
        ("one,two\nthree,four\nfive,six\n", "table"),
    ],
)
def test_commas_of_sentences_make_no_table(tmp_path, content, kind):
    (tmp_path / "file.txt").write_text(content)
    data = open_data(tmp_path / "file.txt")
    assert data.kind == kind
    assert getattr(data, "columns", {}) == {} or not content.startswith(("It", "When", "On", "Doe"))


def test_tables_in_txt_files_stay_tables(tmp_path):
    (tmp_path / "numbers.txt").write_text("1\n2\n3\n4\n")
    (tmp_path / "columns.txt").write_text("a b c;x\n1;2\n3;4\n5;6\n")
    (tmp_path / "one.txt").write_text("a single line")
    assert [open_data(tmp_path / name).kind for name in ("numbers.txt", "columns.txt", "one.txt")] == [
        "table",
        "table",
        "text",
    ]


def test_a_folder_per_class_labels_its_files(tmp_path):
    for part in ("train", "test"):
        for mood in ("pos", "neg", "unsup"):
            folder = tmp_path / "films" / part / mood
            folder.mkdir(parents=True)
            for number in range(3):
                (folder / f"{number}.txt").write_text(f"{part} {mood} {number}\nand a second line")
    data = open_data(tmp_path / "films")
    assert data.class_names == ("neg", "pos")
    assert np.bincount(data.part).tolist() == [9, 0, 9]
    assert (data.labels == -1).sum() == 6
    assert data.names[0] == "test/neg/0.txt"
    with tarfile.open(tmp_path / "films.tar.xz", "w:xz") as archive:
        archive.add(tmp_path / "films", "films")
    packed = open_data(tmp_path / "films.tar.xz")
    assert sorted(packed.texts.texts()) == sorted(data.texts.texts())
    assert packed.class_names == data.class_names


def test_a_tree_of_sources_has_no_classes(tmp_path):
    for name in ("main.py", "core/a.py", "core/deep/b.py", "nn/c.py", "nn/deep/d.py"):
        (tmp_path / "src" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "src" / name).write_text(f"# {name}\nimport os\n")
    (tmp_path / "src" / "logo.png").write_bytes(b"\x89PNG")
    data = open_data(tmp_path / "src")
    assert data.unit == "file" and len(data) == 5 and data.class_names == ()
    assert any("different depths" in note for note in data.notes)


def test_files_named_after_parts_are_lines(tmp_path):
    (tmp_path / "wiki.train.txt").write_text("one line\nanother line\n")
    (tmp_path / "wiki.test.txt").write_text("a third line\none line\n")
    (tmp_path / "README.md").write_text("about the data")
    data = open_data(tmp_path)
    assert data.part.tolist() == [2, 0, 0, 0]  # a line that stands in both is for training
    assert data.document_part.tolist() == [2, 0] and data.moved == 1
    assert data.documents.texts()[1] == "one line\nanother line\n"
    (tmp_path / "wiki.test.txt").rename(tmp_path / "news.test.txt")
    with pytest.raises(DataError, match="several data sets"):
        open_data(tmp_path)


def test_what_cannot_be_read_is_left_out_and_told(tmp_path):
    (tmp_path / "good.txt").write_text("fine")
    (tmp_path / "other.txt").write_text("fine too")
    (tmp_path / "empty.txt").write_text("")
    (tmp_path / "russian.txt").write_bytes("Это другая кодировка".encode("koi8-r"))
    data = open_data(tmp_path)
    assert len(data) == 2
    assert any("empty.txt (empty)" in note and "russian.txt (neither UTF-8" in note for note in data.notes)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("blank.txt", b"\n\n  \n", "no text but blanks"),
        ("empty.txt", b"", "empty"),
        ("header.csv", b"text,label\n", "no rows"),
        ("koi8.md", "Привет, мир, это старая кодировка".encode("koi8-r"), "encoding cannot be known"),
        ("binary.md", bytes(range(256)), "binary data"),
        ("cut.txt.gz", gzip.compress(b"hello\n" * 100, mtime=0)[:-9], "cannot be read"),
        ("blanks.zip", b"PK\x05\x06" + bytes(18), "no text|no images"),
    ],
)
def test_bad_files_end_in_one_line(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        open_data(tmp_path / name)


def test_an_unknown_ending_is_no_hindrance(tmp_path):
    (tmp_path / "sentences.train").write_text("0 a film\n1 no film\n0 it is\n1 is it\n")
    data = open_data(tmp_path / "sentences.train")
    assert data.class_names == ("0", "1") and data.texts.texts()[0] == "a film"


# -- tables -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "tsv", "jsonl", "parquet"])
def test_a_table_of_text_and_a_target_holds_texts(tmp_path, ending):
    path = tmp_path / f"reviews.{ending}"
    made = frame(id=np.arange(len(FILMS)))
    if ending == "parquet":
        made.to_parquet(path)
    elif ending == "jsonl":
        made.to_json(path, orient="records", lines=True)
    else:
        made.to_csv(path, index=False, sep="\t" if ending == "tsv" else ",")
    data = open_data(path)
    assert isinstance(data, Texts)
    assert data.texts.texts() == FILMS
    assert [data.class_names[label] for label in data.labels] == MOODS
    assert data.columns == {"text": ["review"], "target": "mood", "pairs": False}
    assert open_data(path, "mood").fingerprint == data.fingerprint


def test_text_comes_as_it_stands_in_the_file(tmp_path):
    made = [
        "  two blanks before a text of words",
        "NA is not missing in a text",
        'with "quotes" and\na second line',
        "None of it",
    ]
    pd.DataFrame({"text": [*made, *FILMS[:12]], "label": list("abab") * 4}).to_csv(tmp_path / "t.csv", index=False)
    assert open_data(tmp_path / "t.csv").texts.texts()[:4] == made


def test_mixed_tables_stay_tables_unless_a_column_is_named(tmp_path):
    frame(minutes=np.arange(len(FILMS)) * 1.5).to_csv(tmp_path / "mixed.csv", index=False)
    table = open_data(tmp_path / "mixed.csv")
    assert isinstance(table, Table)
    assert any("mixed.csv#review" in note for note in table.notes)
    data = open_data(f"{tmp_path / 'mixed.csv'}#review", "mood")
    assert data.texts.texts() == FILMS and data.class_names == ("bad", "good")
    assert open_data(data.source, "mood").fingerprint == data.fingerprint
    with pytest.raises(DataError, match="no column 'revew'; did you mean 'review'"):
        open_data(f"{tmp_path / 'mixed.csv'}#revew")
    with pytest.raises(DataError, match="is not a table"):
        open_data("digits#image")


def test_a_file_may_be_called_like_a_column(tmp_path):
    frame().to_csv(tmp_path / "a#b.csv", index=False)
    assert open_data(tmp_path / "a#b.csv").texts.texts() == FILMS
    assert open_data(f"{tmp_path / 'a#b.csv'}#review").texts.texts() == FILMS


def test_tables_without_a_header(tmp_path):
    rows = [f"{mood}\t{film}" for film, mood in zip(FILMS, MOODS, strict=True)]
    (tmp_path / "spam.tsv").write_text("\n".join(rows))
    data = open_data(tmp_path / "spam.tsv")
    assert data.texts.texts() == FILMS and data.columns["target"] == "c0"
    wide = "Country Name,Indicator Name of the Bank,1960\nX,y,1\n"
    (tmp_path / "bank.csv").write_text("What do you think of us?,Age\nfine,31\nall right,44\n")
    assert list(open_data(tmp_path / "bank.csv").columns) == ["What do you think of us?", "Age"]
    assert "Indicator" in wide  # a header with a year is told from data by its short cells
    (tmp_path / "wide.csv").write_text("Country Name,Code,1960\nA land,x,1\nB land,y,2\n")
    assert "1960" in open_data(tmp_path / "wide.csv").columns


def test_several_columns_of_text_are_one_text(tmp_path):
    made = pd.DataFrame(
        {"title": [f"The {n}th news of the day" for n in range(30)], "body": FILMS[:30], "label": MOODS[:30]}
    )
    made.to_csv(tmp_path / "news.csv", index=False)
    data = open_data(tmp_path / "news.csv")
    assert isinstance(data, Texts)
    assert data.texts.texts()[1] == f"The 1th news of the day\n{FILMS[1]}"
    new = open_data(pd.DataFrame({"title": ["A title here"], "body": ["its body is this"]}), like=data.columns)
    assert isinstance(new, Texts) and new.texts.texts() == ["A title here\nits body is this"]


def test_new_data_is_read_like_the_old(tmp_path):
    like = open_data(frame()).columns
    few = open_data(pd.DataFrame({"id": [7, 8], "review": ["ok", "NA"], "stars": [1.5, 2.5]}), like=like)
    assert few.texts.texts() == ["ok", "NA"] and few.labels.tolist() == [-1, -1]
    known = open_data(pd.DataFrame({"review": ["fine", "bad one"], "mood": ["good", "bad"]}), like=like)
    assert known.class_names == ("bad", "good")
    renamed = open_data(pd.DataFrame({"comment": FILMS[:12]}), like=like)
    assert renamed.texts.texts() == FILMS[:12]
    with pytest.raises(DataError, match="no column 'review'"):
        open_data(pd.DataFrame({"a": [1.0, 2.0], "b": [2.0, 3.0]}), like=like)


def test_rows_keep_their_place_when_they_are_empty():
    data = open_data(pd.DataFrame({"text": [*FILMS[:20], None, " "], "label": list("ab") * 11}))
    assert len(data) == 22 and data.empty.tolist() == [False] * 20 + [True] * 2
    assert data.names[-1] == 22


def test_a_target_of_one_value_or_of_numbers():
    one = open_data(pd.DataFrame({"text": FILMS, "label": "good"}))
    assert one.class_names == ("good",) and (one.labels == 0).all()
    numbers = open_data(pd.DataFrame({"text": FILMS, "score": np.linspace(0, 1, len(FILMS))}))
    assert numbers.class_names == () and any("holds numbers" in note for note in numbers.notes)


def test_few_different_numbers_are_classes_whether_or_not_they_count_up():
    """Stars without a 3, and half points: texts have no numbers to predict, so that nothing else can be meant."""
    for values in ([1, 2, 4, 5], [0.5, 1.0, 3.5]):
        frame = pd.DataFrame({"text": FILMS, "stars": (values * len(FILMS))[: len(FILMS)]})
        for target in (None, "stars"):
            data = open_data(frame, target=target)
            assert data.class_names == tuple(f"{value:g}" for value in values)
            assert any("each is taken as a class" in note for note in data.notes)
        some = open_data(frame[:3], like=data.columns)  # too few rows to tell, but the classes are known
        assert some.class_names == tuple(f"{value:g}" for value in values[:3]) and (some.labels >= 0).all()


@pytest.mark.parametrize("names", [("question", "answer"), ("Answer", "Question"), ("prompt", "completion")])
@pytest.mark.parametrize("short", ["texts", "numbers"])
def test_questions_and_short_answers_are_pairs_in_the_order_of_the_question(names, short):
    answers = list(range(len(FILMS))) if short == "numbers" else [f"n{row}" for row in range(len(FILMS))]
    asked = [name.casefold() in ("question", "prompt") for name in names]
    data = open_data(pd.DataFrame({name: FILMS if ask else answers for name, ask in zip(names, asked, strict=True)}))
    assert isinstance(data, Pairs) and np.isnan(data.scores).all()
    assert data.first.texts() == FILMS and data.second.texts() == [str(answer) for answer in answers]
    assert data.columns["text"] == [names[asked.index(True)], names[asked.index(False)]]
    again = open_data(pd.DataFrame({"question": ["a b c"], "answer": ["d"]})[:1], like=open_data(
        pd.DataFrame({"question": FILMS, "answer": answers})).columns)  # fmt: skip
    assert again.first.texts() == ["a b c"] and again.second.texts() == ["d"]


def test_answers_that_repeat_are_classes():
    data = open_data(pd.DataFrame({"question": FILMS, "answer": ["yes", "no"] * (len(FILMS) // 2)}))
    assert isinstance(data, Texts) and data.class_names == ("no", "yes")


def test_a_guessed_target_of_many_texts_gives_no_labels():
    texts = [f"number {row} of the comments" for row in range(150)]
    data = open_data(pd.DataFrame({"comment": texts, "who": [f"u{row % 120}" for row in range(150)]}))
    assert data.class_names == () and data.texts.texts() == texts
    assert any("120 different texts, which are not classes" in note for note in data.notes)
    assert not any("target guessed" in note for note in data.notes)
    with pytest.raises(DataError, match="looks like an id"):
        open_data(pd.DataFrame({"comment": texts, "who": [f"u{row % 120}" for row in range(150)]}), target="who")


def test_a_target_that_was_asked_for_is_never_passed_over():
    frame = pd.DataFrame({"text": FILMS, "price": np.linspace(0, 1, len(FILMS))})
    with pytest.raises(
        DataError, match=r"'price' holds \d+ different numbers, and texts are judged by classes; name a"
    ):
        open_data(frame, target="price")


def test_a_western_guess_is_not_believed_for_other_scripts(tmp_path):
    rows = "\n".join(f"это предложение номер {n} из многих слов;{'да' if n % 2 else 'нет'}" for n in range(30))
    (tmp_path / "old.csv").write_bytes(("текст;метка\n" + rows).encode("cp1251"))
    with pytest.raises(DataError, match="neither in UTF-8 nor in a Western encoding"):
        open_data(tmp_path / "old.csv")


# -- objects ----------------------------------------------------------------------------------------------------


def test_strings_and_labels_from_python():
    data = open_data((FILMS, MOODS))
    assert data.class_names == ("bad", "good") and data.texts.texts() == FILMS
    assert open_data(FILMS).labels.max() == -1
    assert open_data(np.array(FILMS)).texts.texts() == FILMS
    assert open_data(pd.Series(FILMS)).texts.texts() == FILMS
    split = open_data({"train": (FILMS[:40], MOODS[:40]), "test": FILMS[40:]})
    assert split.part.tolist() == [0] * 40 + [2] * (len(FILMS) - 40)
    assert split.labels[-1] == -1
    with pytest.raises(DataError, match="labels"):
        open_data((FILMS, MOODS[:-1]))
    with pytest.raises(DataError, match="text 2 is a int"):
        Texts.from_strings(["a", 3])


def test_pairs_from_python():
    data = open_data(([("a cat", "a dog"), ("one", "two"), ("x", "y")], [1, None, 0.5]))
    assert isinstance(data, Pairs)
    assert data.first.texts() == ["a cat", "one", "x"]
    np.testing.assert_array_equal(data.scores, [1, np.nan, 0.5])
    for pairs, scores in (([("a", "b")], [1, 2]), ([("a", "b")], ["no"])):
        with pytest.raises(DataError):
            open_data((pairs, scores))


# -- pairs ------------------------------------------------------------------------------------------------------


def test_pairs_in_a_table(tmp_path):
    made = pd.DataFrame({"sentence1": FILMS[:30], "sentence2": FILMS[30:60], "score": np.linspace(0, 5, 30).round(2)})
    for header in (True, False):
        made.to_csv(tmp_path / "pairs.csv", index=False, header=header)
        data = open_data(tmp_path / "pairs.csv")
        assert isinstance(data, Pairs) and data.first.texts() == FILMS[:30] and data.second.texts() == FILMS[30:60]
        np.testing.assert_array_equal(data.scores, made["score"])
    labelled = open_data(made.assign(score=["entails", "not"] * 15))
    assert labelled.class_names == ("entails", "not") and np.isnan(labelled.scores).all()
    assert isinstance(open_data(made.drop(columns="score")), Pairs)


def test_the_same_pair_the_other_way_round_is_the_same():
    pairs = [("A cat.", "a dog"), ("a dog", "a cat"), ("a cat", "a bird")]
    data = open_data({"train": (pairs[:1], [1.0]), "test": (pairs[1:], [1.0, 0.0])})
    assert data.groups[0] == data.groups[1] != data.groups[2]
    assert data.part.tolist() == [0, 0, 2] and data.moved == 1


# -- duplicates and blanks --------------------------------------------------------------------------------------


def folded(text: str) -> str:
    letters = "".join(letter if ord(letter) > 127 else letter.lower() if letter.isalnum() else " " for letter in text)
    return " ".join(part for part in letters.split(" ") if part)


@given(st.lists(st.text("aAbB .,!ä\n", max_size=8), max_size=12), st.sampled_from([1, 3, 1 << 20]))
def test_the_same_is_what_python_says_is_the_same(texts, piece):
    before, utf8._PIECE = utf8._PIECE, piece
    try:
        ragged = Ragged.of_texts(texts)
        exact, near, empty = same(ragged), same(ragged, fold=True), blank(ragged)
    finally:
        utf8._PIECE = before
    for groups, key in ((exact, str), (near, folded)):
        assert [[a == b for a in groups] for b in groups] == [[key(a) == key(b) for a in texts] for b in texts]
    assert empty.tolist() == [not text.strip() for text in texts]


def test_a_test_set_of_duplicates_is_no_test_set():
    data = open_data({"train": (FILMS[:10], MOODS[:10]), "test": (FILMS[:5], MOODS[:5])})
    assert not data.given_split and not data.part.any()
    assert any("every test row is also a training row" in note for note in data.notes)


# -- the facts page ---------------------------------------------------------------------------------------------


def test_the_facts_page_of_texts():
    texts = ["One two three.", "one TWO three", "One two three.", "déjà vu", "", "bell\x07 \ufffd"]
    look = Texts.from_strings(texts, ["a", "a", "b", "b", "b", "b"], name="six").look()
    assert isinstance(look, Look)
    numbers = look.numbers
    assert numbers["bytes"] == sum(len(text.encode()) for text in texts)
    assert numbers["characters"] == sum(map(len, texts))
    assert numbers["words"] == sum(len(text.split()) for text in texts)
    assert (numbers["exact_duplicates"], numbers["near_duplicates"]) == (1, 1)
    assert numbers["conflicting_labels"] == 1
    assert (numbers["control_characters"], numbers["replacement_characters"], numbers["empty"]) == (1, 1, 1)
    assert numbers["class_counts"] == {"a": 2, "b": 4}
    assert numbers["longest_bytes"] == 14
    assert "a: One two three." in str(look)


def test_the_facts_page_of_pairs():
    data = open_data(([("a cat sits", "a dog"), ("a dog", "a cat sits"), ("x", "y")], [1.0, 1.0, 0.0]))
    numbers = data.look().numbers
    assert numbers["scored"] == numbers["labelled"] == 3
    assert numbers["distinct_texts"] == 4
    assert (numbers["exact_duplicates"], numbers["near_duplicates"]) == (0, 1)
    assert (numbers["score_min"], numbers["score_max"]) == (0, 1)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("the cat is on the mat and it was not there", "English"),
        ("der Hund ist nicht mit der Katze auf dem Dach", "German"),
        ("le chat est sur la table et il ne mange pas", "French"),
        ("el perro no está en la casa con los niños", "Spanish"),
        ("Привет, это большой дом, и мы здесь", "Russian"),
        ("Це не є великий їжак", "Ukrainian"),
        ("这是一个很长的句子", "Chinese"),
        ("これは日本語の文章です", "Japanese"),
        ("이것은 한국어 문장입니다", "Korean"),
        ("هذا نص باللغة العربية", "Arabic"),
        ("Καλημέρα κόσμε", "Greek"),
        ("xyzzy plugh 42", "unknown"),
        ("", "unknown"),
    ],
)
def test_languages_are_guessed(text, expected):
    assert language(text) == expected


# -- built in, and real data ------------------------------------------------------------------------------------


def test_built_in_texts():
    docs, lines, pairs = (open_data(name) for name in ("python-docs", "python-lines", "python-pairs"))
    assert "assert" in docs.names and docs.look().numbers["languages"]["English"] > 0.9
    assert np.bincount(lines.labels).tolist() == [2000, 2000]
    assert set(np.unique(pairs.scores)) == {0.0, 1.0}
    assert open_data("python-lines").fingerprint == lines.fingerprint


def test_python_source():
    data = open_data("python-source")
    assert "argparse.py" in data.names and data.texts.nbytes > 5e6


def test_sentence_suite(shared_data, tmp_path):
    with tarfile.open(shared_data / "classification/sentence-suite/sentence-suite.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    reviews = open_data(tmp_path / "rt-polarity.all")
    assert np.bincount(reviews.labels).tolist() == [5331, 5331]
    (tmp_path / "trec").mkdir()
    for part in ("train", "test"):
        (tmp_path / f"TREC.{part}.all").rename(tmp_path / "trec" / f"{part}.all")
    questions = open_data(tmp_path / "trec")
    assert len(questions) == 5952 and len(questions.class_names) == 6
    assert (questions.part == 2).sum() + questions.moved == 500


def test_sts_benchmark(shared_data):
    data = open_data(shared_data / "sts/stsb")
    assert isinstance(data, Pairs) and len(data) == 5749 + 1500 + 1379
    assert np.isfinite(data.scores).all() and data.scores.max() == 5


def test_texts_of_many_scripts(shared_data, tmp_path):
    data = open_data(shared_data / "text/udhr/udhr2.zip")
    assert {"Chinese", "Greek", "Russian", "Thai"} <= set(data.look().numbers["languages"])
    with zipfile.ZipFile(shared_data / "text/genesis/genesis.zip") as archive:
        archive.extractall(tmp_path)
    left_out = " ".join(open_data(tmp_path).notes)
    assert "swedish.txt" in left_out  # written with a code page of DOS
