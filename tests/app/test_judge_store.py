"""Judgement by people below the pages: what is imported, who gets what, that nothing is lost or doubled, on SQLite and on
a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import random
import signal
import sqlite3
import threading
import time
from collections import Counter

import numpy as np
import pytest
import sqlalchemy
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("sqlmodel", reason="needs sqlmodel (the extra web)")

from sqlmodel import select

import judging
from judging import new_study, outputs, write_rows
from papertrial.app.judge.outputs import clean, picture, read
from papertrial.app.judge.scheduling import Refused
from papertrial.app.judge.store import Store
from papertrial.app.judge.tables import VERSION, Assignment, Judgement, Rater, Unit, Version
from papertrial.core.errors import DataError, PapertrialError
from papertrial.core.files import parse_json
from papertrial.core.judgement import Judgements, template

POSTGRESQL = pytest.param("postgresql", marks=pytest.mark.slow)


@pytest.fixture(scope="module")
def server():
    with judging.postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", POSTGRESQL])
def place(request, tmp_path):
    return str(tmp_path / "x.db") if request.param == "sqlite" else request.getfixturevalue("server").database()


@pytest.fixture
def store(place):
    opened = Store(place, create=True)
    yield opened
    opened.close()


class Clock:
    def __init__(self) -> None:
        self.now = 1e9

    def __call__(self) -> float:
        self.now += 0.001
        return self.now


def work_through(store, rater, choose):
    """Answer all there is; the works seen, in order."""
    desk = store.take(rater)
    seen = []
    while desk.work is not None:
        seen.append(desk.work)
        desk = store.answer(rater, desk.work.assignment, choose(desk.work))
    return seen


# ----------------------------------------------------------------------------------------------------------------- rules


def test_a_whole_study_gives_each_output_its_labels_and_keeps_what_was_said(store, tmp_path):
    study, _, raters = new_study(store, outputs(tmp_path, 6), raters=4, labels=2)
    said = {}
    for rater, _ in raters:

        def choose(work, rater=rater):
            value = random.Random(f"{rater.name}{work.outputs[0].text}").choice([0, 0.25, 0.5, 0.75, 1.0])
            said[rater.name, work.outputs[0].text] = value
            return {"quality": value}

        seen = work_through(store, rater, choose)
        assert len(seen) == 6 == len({work.outputs[0].text for work in seen})
        assert all(work.context == {"source": f"question {work.outputs[0].text[1:]}"} for work in seen)
    found = store.judgements(study.id)
    assert set(Counter((row.item, row.system) for row in found.ratings).values()) == {2}
    assert {(row.rater, row.system[-1] + row.item[1:]): row.value for row in found.ratings} == said
    told = store.progress(study.id)
    assert (told.labels, told.wanted, told.undone) == (24, 24, 0)
    assert not store.desk(raters[0][0]).more and store.desk(raters[0][0]).state == "finished"


def test_the_order_is_random_and_not_that_of_another_rater(tmp_path):
    store = Store(tmp_path / "x.db", create=True)
    _, _, raters = new_study(store, outputs(tmp_path, 20), raters=3, labels=3)
    orders = [
        [work.outputs[0].text for work in work_through(store, rater, lambda _: {"quality": 1.0})] for rater, _ in raters
    ]
    assert len({tuple(order) for order in orders}) == 3
    assert len({tuple(sorted(order)) for order in orders}) == 1  # all of it, each
    for order in orders:
        rank = np.argsort(np.argsort(order))
        assert abs(np.corrcoef(rank, np.arange(40))[0, 1]) < 0.6
        assert abs(sum(text[0] == "a" for text in order[:20]) - 10) < 8  # neither system comes first
    store.close()


def test_sides_are_drawn_and_the_outcome_is_told_in_the_order_of_the_systems(store, tmp_path):
    study, _, raters = new_study(store, outputs(tmp_path, 20), asked="pairwise", raters=2, labels=2)
    left = Counter()
    for rater, _ in raters:

        def choose(work):
            sides = [shown.text[0] for shown in work.outputs]
            left[sides[0]] += 1
            number = int(work.outputs[0].text[1:])
            return {"better": 0.5 if number % 5 == 0 else 1.0 if sides[0] == "b" else 0.0}  # b, or equal

        work_through(store, rater, choose)
    found = store.judgements(study.id).preferences
    assert len(found) == 40 and left["a"] >= 8 and left["b"] >= 8
    for row in found:
        assert (row.first, row.second) == ("system-a", "system-b")
        assert row.outcome == (0.5 if int(row.item[1:]) % 5 == 0 else 0.0)


def test_checks_come_in_between_and_are_told_apart_from_ratings(store, tmp_path):
    checks = write_rows(
        tmp_path / "checks.jsonl",
        [
            {"source": "Say x.", "output": "y", "answer": "strongly disagree | disagree"},
            {"output": "z", "answer": "agree"},
        ],
    )
    study, _, raters = new_study(store, outputs(tmp_path, 10), raters=2, checks=checks)
    first = work_through(store, raters[0][0], lambda work: {"quality": 0.25})
    texts = [work.outputs[0].text for work in first]
    assert len(texts) == 12 and {"y", "z"} <= set(texts) and texts[0] not in "yz"
    assert {tuple(work.context) for work in first if work.outputs[0].text == "y"} == {("source",)}
    found = store.judgements(study.id)
    assert len(found.ratings) == 10 and sorted(check.right for check in found.checks) == [False, True]
    told = store.progress(study.id).raters[0]
    assert (told.done, told.checks, told.passed) == (10, 2, 1)
    [(_, labels, people)] = store.overview()
    assert (labels, people) == (10, 2)  # no checks among them


def test_undo_marks_and_goes_back_as_far_as_wished(store, tmp_path):
    study, _, [(rater, _)] = new_study(store, outputs(tmp_path, 3), raters=1)
    desk = store.take(rater)
    shown = []
    for _ in range(3):
        shown.append(desk.work.assignment)
        desk = store.answer(rater, desk.work.assignment, {"quality": 1.0})
    open_ = desk.work.assignment
    again = store.undo(rater, desk.last)
    assert again.work.assignment == shown[2] and again.done == 2 and again.last == shown[1]
    assert store.undo(rater, desk.last) == again  # a second click on the same button takes back nothing more
    again = store.undo(rater, again.last)
    assert again.work.assignment == shown[1]
    for wanted in (shown[1], shown[2], open_):
        assert store.desk(rater).work.assignment == wanted
        store.answer(rater, wanted, {"quality": 0.0})
    values = [row.value for row in store.judgements(study.id).ratings]
    assert sorted(values) == [0.0, 0.0, 0.0, 1.0]
    assert store.progress(study.id).undone == 2
    with store.reading() as session:  # nothing is ever deleted
        assert len(session.exec(select(Judgement)).all()) == 6


def test_an_answer_counts_once_however_often_it_comes(store, tmp_path):
    study, _, [(rater, _)] = new_study(store, outputs(tmp_path, 3), raters=1)
    one = store.take(rater).work.assignment
    first = store.answer(rater, one, {"quality": 1.0})
    assert store.answer(rater, one, {"quality": 0.0}) == first
    threads = [
        threading.Thread(target=store.answer, args=(rater, first.work.assignment, {"quality": 0.25})) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [row.value for row in store.judgements(study.id).ratings] == [1.0, 0.25]


def test_what_is_let_lie_goes_to_another_and_a_late_answer_counts(place, tmp_path):
    clock = Clock()
    store = Store(place, create=True, clock=clock)
    study, _, [(slow, _), (quick, _)] = new_study(store, outputs(tmp_path, 2), raters=2, minutes=10)
    late = store.take(slow)
    assert work_through(store, quick, lambda _: {"quality": 1.0}) and store.desk(quick).more
    store.take(quick, 10)
    assert len(work_through(store, quick, lambda _: {"quality": 1.0})) == 1  # all but what slow has is done
    assert store.progress(study.id).labels == 3 and store.desk(quick).state == "finished"
    clock.now += 601
    assert store.desk(slow).work == late.work  # still there for whoever comes back
    assert store.desk(quick).state == "ready"
    again = work_through(store, quick, lambda _: {"quality": 0.5})
    assert [work.outputs for work in again] == [late.work.outputs]
    store.answer(slow, late.work.assignment, {"quality": 0.0})
    counts = Counter((row.item, row.system) for row in store.judgements(study.id).ratings)
    assert sorted(counts.values()) == [1, 1, 1, 2]
    store.close()


def test_one_who_let_it_lie_gets_it_again_when_others_do_too(tmp_path):
    clock = Clock()
    store = Store(tmp_path / "x.db", create=True, clock=clock)
    _, _, [(one, _), (two, _)] = new_study(store, outputs(tmp_path, 1, "a"), raters=2, minutes=10)
    assert store.take(one).state == "work" and store.take(two).state == "finished"
    clock.now += 601
    assert store.take(two).state == "work" and store.desk(one).state == "finished"
    clock.now += 601
    assert store.take(one).state == "work" and store.desk(two).state == "finished"
    with store.reading() as session:
        assert [unit.taken for unit in session.exec(select(Unit))] == [1]
        assert sorted(row.state for row in session.exec(select(Assignment))) == ["lapsed", "open"]
    store.close()


def test_pausing_closing_and_revoking(store, tmp_path):
    study, _, [(rater, token), (other, _)] = new_study(store, outputs(tmp_path, 2), raters=2)
    desk = store.take(rater)
    store.set_state(study.id, "paused")
    assert store.take(other).state == "paused"
    assert store.answer(rater, desk.work.assignment, {"quality": 1.0}).state == "paused"  # what was given out counts
    store.set_state(study.id, "open")
    desk = store.take(rater)
    store.set_state(study.id, "closed")
    with pytest.raises(Refused, match="closed"):
        store.answer(rater, desk.work.assignment, {"quality": 1.0})
    with pytest.raises(Refused, match="closed"):
        store.undo(rater, desk.last)
    store.set_state(study.id, "open")
    store.revoke(study.id, rater.id)
    assert store.rater(study.id, token) is None and store.enter(token) is None
    assert len(store.judgements(study.id).ratings) == 1  # what was said stays
    assert len(work_through(store, other, lambda _: {"quality": 1.0})) == 2
    store.take(other, 10)
    assert len(work_through(store, other, lambda _: {"quality": 1.0})) == 1  # what was given back
    name, new = store.renew(study.id, rater.id)
    assert name == rater.name and store.enter(token) is None and store.enter(new) == ("rater", study.id)


def test_nobody_enters_with_what_is_not_theirs(store, tmp_path):
    one, admin, [(rater, token)] = new_study(store, outputs(tmp_path, 2), raters=1)
    two, other_admin, [(other, other_token)] = new_study(store, outputs(tmp_path, 2), raters=1)
    assert store.enter(token) == ("rater", one.id) and store.enter(admin) == ("admin", one.id)
    assert store.rater(two.id, token) is None and store.rater(one.id, other_token) is None
    assert store.administers(one.id, other_admin) is None and store.administers(one.id, token) is None
    assert store.administers(one.id, admin).name == one.name
    for forged in (
        "",
        token[:-1],
        token + "a",
        token.swapcase(),
        "' OR '1'='1",
        "\0",
        "é",
        "x" * 10_000,
        one.token,
        rater.token,
    ):
        assert store.enter(forged) is None and store.rater(one.id, forged) is None
        assert store.administers(one.id, forged) is None
    mine = store.take(other).work.assignment
    for theirs in (mine, 0, -1, 2**31, 2**63, 10**30):
        with pytest.raises(Refused, match="not one of your items"):
            store.answer(rater, theirs, {"quality": 1.0})
        assert store.picture(rater, theirs, 0) is None
    with store.reading() as session:
        assert token not in str([row.model_dump() for row in session.exec(select(Rater))])


def test_many_at_once_never_exceed_what_was_asked_for(store, tmp_path):
    study, _, raters = new_study(store, outputs(tmp_path, 10), raters=12, labels=3)
    failed = []

    def run(rater):
        try:
            work_through(store, rater, lambda _: {"quality": 1.0})
            store.take(rater, 10)
            work_through(store, rater, lambda _: {"quality": 1.0})
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=run, args=(rater,)) for rater, _ in raters]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    counts = Counter((row.item, row.system) for row in store.judgements(study.id).ratings)
    assert len(counts) == 20 and set(counts.values()) == {3}


def test_a_write_that_fails_among_others_fails_alone(tmp_path):
    store = Store(tmp_path / "x.db", create=True)
    study, _, raters = new_study(store, outputs(tmp_path, 20), raters=10)
    desks = [store.take(rater) for rater, _ in raters]
    entered, go, outcomes = threading.Event(), threading.Event(), {}

    def hold(session):
        entered.set()
        go.wait(20)

    def answer(index):
        assignment = desks[index].work.assignment if index % 2 else 10**6
        try:
            store.answer(raters[index][0], assignment, {"quality": 1.0})
            outcomes[index] = "kept"
        except Refused:
            outcomes[index] = "refused"

    threads = [threading.Thread(target=store.write, args=(study.id, hold))]
    threads[0].start()
    entered.wait(20)
    threads += [threading.Thread(target=answer, args=(index,)) for index in range(10)]
    for thread in threads[1:]:
        thread.start()
    while len(store._lines[0].coming) < 10:
        time.sleep(0.01)
    go.set()
    for thread in threads:
        thread.join()
    assert outcomes == {index: "kept" if index % 2 else "refused" for index in range(10)}
    assert len(store.judgements(study.id).ratings) == 5
    store.close()


@settings(max_examples=15)
@given(st.lists(st.tuples(st.integers(0, 2), st.sampled_from(["take", "answer", "undo", "wait", "more"])), max_size=30))
def test_whatever_raters_do_the_counts_agree(tmp_path_factory, steps):
    folder = tmp_path_factory.mktemp("steps")
    clock = Clock()
    store = Store(folder / "x.db", create=True, clock=clock)
    _, _, raters = new_study(store, outputs(folder, 2), raters=3, labels=2, minutes=10)
    for index, step in steps:
        rater = raters[index][0]
        desk = store.desk(rater)
        if step == "take":
            store.take(rater)
        elif step == "more":
            store.take(rater, 1)
        elif step == "wait":
            clock.now += 400
        elif step == "answer" and desk.work:
            store.answer(rater, desk.work.assignment, {"quality": 0.5})
        elif step == "undo" and desk.last:
            store.undo(rater, desk.last)
    with store.reading() as session:
        assignments = session.exec(select(Assignment)).all()
        live = Counter(row.assignment_id for row in session.exec(select(Judgement)) if row.undone is None)
        held = Counter(row.unit_id for row in assignments if row.state != "lapsed")
        for unit in session.exec(select(Unit)):
            assert unit.taken == held[unit.id]
    assert live == Counter({row.id: 1 for row in assignments if row.state == "done"})
    store.close()


# ------------------------------------------------------------------------------------------------------- nothing is lost


@pytest.mark.parametrize("kind", ["sqlite", POSTGRESQL])
def test_kill_9_loses_no_acknowledged_judgement(kind, tmp_path, request):
    bench = judging.bench()
    place = str(tmp_path / "load.db") if kind == "sqlite" else request.getfixturevalue("server").database()
    store, _, tokens = bench.study(place, 12, 200, 1, tmp_path)
    store.close()
    server, host, port = bench.serve(place, tmp_path)
    raters = [bench.Rater(host, port, token) for token in tokens]

    async def load_and_kill():
        works = [
            asyncio.ensure_future(rater.work(time.monotonic() + 60, 0.0, 1, random.Random(index)))
            for index, rater in enumerate(raters)
        ]
        while sum(len(rater.acknowledged) for rater in raters) < 60:
            await asyncio.sleep(0.02)
        server.send_signal(signal.SIGKILL)
        await asyncio.gather(*works)

    try:
        asyncio.run(load_and_kill())
    finally:
        server.kill()
        server.wait()
        server.stdout.close()
    acknowledged = [own for rater in raters for own in rater.acknowledged]
    assert all(rater.errors for rater in raters)  # it was killed under all of them
    store = Store(place)
    with store.reading() as session:
        kept = Counter(session.exec(select(Judgement.assignment_id)).all())
    store.close()
    assert set(acknowledged) <= set(kept) and set(kept.values()) == {1}
    if kind == "sqlite":
        with sqlite3.connect(place) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        connection.close()


def test_what_could_not_be_committed_is_not_acknowledged(tmp_path, monkeypatch):
    store = Store(tmp_path / "x.db", create=True)
    study, _, [(rater, _)] = new_study(store, outputs(tmp_path, 2), raters=1)
    desk = store.take(rater)
    for stop in (sqlite3.OperationalError("database or disk is full"), KeyboardInterrupt()):

        def fail(*_, stop=stop):
            raise stop

        with monkeypatch.context() as patched:
            patched.setattr(store.engine.dialect, "do_commit", fail)
            with pytest.raises((PapertrialError, KeyboardInterrupt)):
                store.answer(rater, desk.work.assignment, {"quality": 1.0})
        assert not store.judgements(study.id).ratings and store.desk(rater) == desk
    store.answer(rater, desk.work.assignment, {"quality": 1.0})
    assert len(store.judgements(study.id).ratings) == 1
    store.close()


def test_sqlite_waits_for_the_disk(tmp_path):
    store = Store(tmp_path / "x.db", create=True)
    with store.reading() as session:
        connection = session.connection()
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
    store.close()


@pytest.mark.slow
def test_a_server_that_comes_back_is_used_again(server, tmp_path):
    place = server.database()
    store = Store(place, create=True)
    study, _, [(rater, _)] = new_study(store, outputs(tmp_path, 2), raters=1)
    desk = store.take(rater)
    server.stop("immediate")
    with pytest.raises(PapertrialError, match="cannot be used"):
        store.answer(rater, desk.work.assignment, {"quality": 1.0})
    server.start()
    store.answer(rater, desk.work.assignment, {"quality": 1.0})
    assert len(store.judgements(study.id).ratings) == 1
    store.close()


# --------------------------------------------------------------------------------------------------------------- imports


def test_hostile_words_are_kept_to_the_letter(store, tmp_path):
    evil = [
        "'; DROP TABLE judge_rater; --",
        '" OR ""="',
        "<script>alert(1)</script>",
        "a\0b\ud800c",
        "%s %(x)s :y ?",
        "\\'",
    ]
    rows = [{"item": f"{word}!", "system": word, "output": word, word: word} for word in evil]
    file = tmp_path / "outputs.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    study, _, _ = new_study(store, file, raters=1)
    store.invite(study.id, [clean(word) for word in evil])
    [rater] = [one for one in store.progress(study.id).raters if one.name == evil[0]]
    _, token = store.renew(study.id, rater.id)
    own = store.rater(study.id, token)[1]
    store.take(own, 10)
    seen = work_through(store, own, lambda _: {"quality": 1.0})
    told = {clean(parse_json(json.dumps(word))) for word in evil}
    assert {work.outputs[0].text for work in seen} == told
    found = store.judgements(study.id).ratings
    assert {row.system for row in found} == told and found[0].rater == evil[0]
    assert len(store.studies()) == 1
    with pytest.raises(PapertrialError, match="no study"):
        store.study("' OR 1=1 --")


def test_only_fields_that_all_systems_share_are_shown(tmp_path):
    one = write_rows(
        tmp_path / "one.jsonl",
        [{"id": 7, "source": "q", "score": 0.1, "by": "A", "text": "x", "references": ["r", "s"]}],
    )
    two = tmp_path / "two.csv"
    with two.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, ["id", "source", "score", "text"])
        writer.writeheader()
        writer.writerow({"id": "7", "source": "q", "score": "0.3", "text": 'y,\n"z"'})
    material = read([f"A={one}", f"B={two}"], template("pairwise"))
    [unit] = material.units
    assert unit.systems == ("A", "B") and unit.entry.outputs["B"].text == 'y,\n"z"'
    assert unit.entry.context == {"source": "q", "references": "r\ns"}
    assert any("score, by" in note for note in material.notes)


def test_pairs_against_one_system_and_outputs_that_are_missing(tmp_path):
    file = outputs(tmp_path, 2, "abc")
    assert len(read([str(file)], template("pairwise")).units) == 6
    units = read([str(file)], template("pairwise"), against="system-b").units
    assert {unit.systems for unit in units} == {("system-a", "system-b"), ("system-b", "system-c")}
    with file.open("a") as stream:
        stream.write('{"item": "lone", "system": "system-a", "output": "x"}\n')
    material = read([str(file)], template("pairwise"))
    assert len(material.units) == 6 and any("2 outputs are missing" in note for note in material.notes)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ('{"item": 1, "output": "x"}', "line 1: no system among item, output;"),
        ('{"system": "a", "output": "x"}', "line 1: no item"),
        ('{"item": 1, "system": "a"}', "line 1: no output"),
        ('{"item": 1, "system": "a", "output": NaN}', "line 1: no output"),
        ("{}", "line 1: no system among nothing"),
        ('\n{"item": 1, "system": "a", "output": "x"}\n' * 2, "line 4: 'a' has an output for item '1' already"),
        ("[1]", "not an object"),
        ("[" * 100_000, "not JSON"),
        ("{", "not JSON"),
        ("", "hold no outputs"),
        ('{"item": 1, "system": "a", "output": "' + "x" * 200_001 + '"}', "200001 characters"),
        ('{"item": 1, "system": "a", "image": "../secret.png"}', "leads out of"),
        ('{"item": 1, "system": "a", "image": "/etc/passwd"}', "leads out of"),
        ('{"item": 1, "system": "a", "image": "link.png"}', "leads out of"),
        ('{"item": 1, "system": "a", "image": "none.png"}', "there is no none.png"),
        ('{"item": 1, "system": "a", "image": "x\\u0000.png"}', "there is no"),
        ('{"item": 1, "system": "a", "image": "text.png"}', "not an image"),
        ('{"item": 1, "system": "a", "image": "bomb.png"}', "too many pixels"),
    ],
)
def test_files_that_cannot_be_used_are_told_by_line(tmp_path, content, words):
    folder = tmp_path / "in"
    folder.mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "secret.png")
    (folder / "link.png").symlink_to(tmp_path / "secret.png")
    (folder / "text.png").write_text("<svg onload=alert(1)>")
    if "bomb" in content:
        Image.new("1", (20_000, 20_000)).save(folder / "bomb.png")
    file = folder / "a.jsonl"
    file.write_text(content)
    with pytest.raises(DataError) as stop:
        read([str(file)], template())
    assert words in str(stop.value) and len(str(stop.value).splitlines()) == 1


def test_pictures_are_written_anew_without_what_a_file_says_beside_them(tmp_path):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (30, 40, 3), dtype=np.uint8))
    exif = photo.getexif()
    exif[0x0131], exif[0x0112] = "made by system-a", 6  # software, and lying on its side
    photo.save(tmp_path / "a.jpg", exif=exif)
    photo.save(tmp_path / "a.png")
    kept = picture("a.jpg", "here", tmp_path)
    assert b"system-a" in (tmp_path / "a.jpg").read_bytes() and b"system-a" not in kept
    assert Image.open(io.BytesIO(kept)).size == (30, 40)
    exact = Image.open(io.BytesIO(picture("a.png", "here", tmp_path)))
    assert np.array_equal(np.asarray(exact), np.asarray(photo))
    Image.new("RGBA", (5000, 100), (1, 2, 3, 0)).save(tmp_path / "wide.png")
    again = Image.open(io.BytesIO(picture("wide.png", "here", tmp_path)))
    assert again.size == (2048, 41) and again.mode == "RGBA"


def test_pictures_to_judge_with_a_picture_beside_them(store, tmp_path):
    for width, name in enumerate("xyz", 20):
        Image.new("L", (width, 5)).save(tmp_path / f"{name}.png")
    file = write_rows(
        tmp_path / "outputs.jsonl",
        [{"item": 1, "system": s, "caption": "a square", "image": f"{i}.png"} for s, i in (("a", "x"), ("b", "y"))],
    )
    _, _, [(rater, _)] = new_study(store, file, asked="pairwise", raters=1)
    work = store.take(rater).work
    assert {shown.picture for shown in work.outputs} == {(20, 5), (21, 5)} and work.picture is None
    assert work.context == {"caption": "a square"}
    sizes = [Image.open(io.BytesIO(store.picture(rater, work.assignment, side))).size for side in (0, 1)]
    assert sizes == [shown.picture for shown in work.outputs]
    assert store.picture(rater, work.assignment, 2) is None
    file = write_rows(tmp_path / "texts.jsonl", [{"item": 1, "system": "a", "output": "a square", "image": "z.png"}])
    _, _, [(rater, _)] = new_study(store, file, raters=1)
    work = store.take(rater).work
    assert work.picture == (22, 5) and work.outputs[0].text == "a square"
    assert Image.open(io.BytesIO(store.picture(rater, work.assignment, 2))).size == (22, 5)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ({"output": "x"}, "'' is not an answer"),
        ({"output": "x", "answer": "agre"}, "did you mean 'agree'"),
        ({"output": "x", "answer": '{"other": "agree"}'}, "no question 'other'"),
        ({"output": "x", "answer": "{"}, "not JSON"),
        ({"answer": "agree"}, "no output"),
    ],
)
def test_checks_that_cannot_be_used(tmp_path, row, words):
    file = write_rows(tmp_path / "checks.jsonl", [row])
    with pytest.raises(DataError, match=words):
        read([str(outputs(tmp_path))], template(), checks=file)


def test_what_is_no_database_of_ours_is_said_in_a_line(tmp_path):
    (tmp_path / "text.db").write_text("hello" * 1000)
    sqlite3.connect(tmp_path / "empty.db").close()
    (tmp_path / "empty.db").touch()
    for place, words in (
        (tmp_path / "none.db", "is not there"),
        (tmp_path, "is not there"),
        (tmp_path / "text.db", "file is not a database"),
        (tmp_path / "empty.db", "holds no studies"),
        ("mysql://me:secret@host/x", "not a database that can be used"),
        ("postgresql://me:secret@/x?host=/nowhere", "cannot be used"),
    ):
        with pytest.raises(PapertrialError, match=words) as stop:
            Store(place)
        assert "secret" not in str(stop.value) and len(str(stop.value).splitlines()) == 1
    with pytest.raises(PapertrialError, match="cannot be a database"):
        Store(tmp_path / "no" / "x.db", create=True)


def change(place, *statements):
    """SQL behind the back of a store."""
    store = Store(place)
    with store.engine.execution_options(writes=True).begin() as connection:
        for statement in statements:
            connection.execute(sqlalchemy.text(statement))
    store.close()


def test_a_database_of_before_versions_is_brought_up_to_date(place, tmp_path):
    store = Store(place, create=True)
    study, _, [(rater, token)] = new_study(store, outputs(tmp_path, 2), raters=1)
    store.answer(rater, store.take(rater).work.assignment, {"quality": 0.75})
    before = store.judgements(study.id)
    store.close()
    change(place, "DROP TABLE judge_version")
    opened, failed = [], []

    def open_():
        try:
            opened.append(Store(place))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=open_) for _ in range(4)]  # as many processes may at the same moment
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and len(opened) == 4
    store = opened[0]
    with store.reading() as session:
        assert session.exec(select(Version.number)).all() == [VERSION]
    assert store.judgements(study.id) == before and store.enter(token) == ("rater", study.id)
    assert len(work_through(store, rater, lambda _: {"quality": 1.0})) == 3
    for store in opened:
        store.close()


def test_many_may_make_the_tables_at_once(place):
    opened, failed = [], []

    def make():
        try:
            opened.append(Store(place, create=True))
        except Exception as error:
            failed.append(error)

    threads = [threading.Thread(target=make) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed and [store.studies() for store in opened] == [[]] * 4
    for store in opened:
        store.close()


def test_a_database_of_a_newer_papertrial_is_refused_and_left_as_it_is(place, papertrial, tmp_path):
    store = Store(place, create=True)
    new_study(store, outputs(tmp_path, 2), raters=1)
    store.close()
    change(place, "ALTER TABLE judge_study ADD COLUMN colour TEXT", f"UPDATE judge_version SET number = {VERSION + 3}")
    for create in (False, True):
        with pytest.raises(PapertrialError, match=f"newer papertrial: its tables have version {VERSION + 3}") as stop:
            Store(place, create=create)
        assert "pip install --upgrade papertrial" in str(stop.value) and len(str(stop.value).splitlines()) == 1
    for words in (
        ("judge", "new", "x", tmp_path / "outputs.jsonl", "--db", place),
        ("judge", "serve", "--db", place),
        ("judge", "status", "--db", place),
        ("web", "--judge", place),
    ):
        code, out, err = papertrial(*words)
        assert code == 2 and "newer papertrial" in err and len(err.splitlines()) == 1 and not out
    engine = sqlalchemy.create_engine(
        place.replace("postgresql:", "postgresql+psycopg:") if "://" in place else f"sqlite:///{place}"
    )
    with engine.connect() as connection:
        assert connection.scalar(sqlalchemy.text("SELECT number FROM judge_version")) == VERSION + 3
        assert connection.scalar(sqlalchemy.text("SELECT count(*) FROM judge_study")) == 1
    engine.dispose()


def test_a_database_that_lost_a_table_is_refused(place):
    store = Store(place, create=True)
    store.close()
    change(place, "DROP TABLE judge_judgement")
    with pytest.raises(PapertrialError, match="lacks the tables judge_judgement"):
        Store(place, create=True)


def test_a_table_that_bears_a_name_of_ours_is_not_taken_over(tmp_path):
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE judge_item (verse TEXT)")
    for create in (False, True):
        with pytest.raises(PapertrialError, match=r"lacks the tables judge_assignment.* or name another database"):
            Store(tmp_path / "other.db", create=create)
    assert other.execute("SELECT name FROM sqlite_master").fetchall() == [("judge_item",)]
    other.close()


def test_the_export_is_read_back(store, tmp_path):
    study, _, [(rater, _)] = new_study(store, outputs(tmp_path, 3), raters=1)
    work_through(store, rater, lambda work: {"quality": 0.75})
    found = store.judgements(study.id)
    for name in ("all.jsonl", "all.csv"):
        assert Judgements.read(found.write(tmp_path / name)) == found
