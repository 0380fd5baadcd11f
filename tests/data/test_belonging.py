"""Rows that belong together, and when they are from: named, guessed, found on paths, and told where a split parts them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from papertrial.core.errors import DataError
from papertrial.data import open as open_data
from papertrial.data.belonging import by_time, coded, joined, moments
from papertrial.data.tables import Table
from papertrial.data.texts import Pairs, Texts


def visits(patients=40, each=5, **more):
    draw = np.random.default_rng(0)
    rows = patients * each
    frame = pd.DataFrame(draw.normal(size=(rows, 3)).round(5), columns=list("abc"))
    frame["y"] = draw.integers(0, 2, rows)
    return frame.assign(patient=np.repeat(np.arange(patients), each), **more)


def test_groups_join_through_each_other_and_rows_of_none_stay_alone():
    copies = np.array([0, 0, 1, 2, 3, 4])
    named = np.array([7, -1, -1, 7, -1, 5])
    found = joined(copies, named)
    assert found[0] == found[1] == found[3]
    assert len({found[0], found[2], found[4], found[5]}) == 4
    assert joined(copies, None) is copies
    assert coded(["b", "", "a", "b"]).tolist() == [2, -1, 1, 2]


def test_a_column_that_is_an_id_with_repeats_is_found_said_and_no_input():
    table = Table.from_frame(visits())
    assert table.group == "patient" and not table.columns["patient"].use
    assert table.target == "y"
    assert any("'patient' says which rows belong together (guessed; --group none" in line for line in table.notes)
    assert len(np.unique(table.groups)) == 40
    plain = open_data(visits(), group="none")
    assert plain.group == "" and plain.columns["patient"].use and plain.together is None


@pytest.mark.parametrize(
    "column",
    [
        {"patient": np.arange(200)},  # hardly repeats
        {"patient": np.arange(200) % 4},  # too few to be ids
        {"patient": np.random.default_rng(0).normal(size=200)},
        {"product_id": np.repeat(np.arange(40), 5)},  # a thing whose name may tell
    ],
)
def test_what_is_no_id_with_repeats_is_no_group(column):
    table = Table.from_frame(visits().drop(columns="patient").assign(**column))
    assert table.group == ""


def test_a_named_column_takes_the_place_of_the_guess_and_the_target_is_chosen_anew():
    frame = visits(ward=np.tile(np.arange(20), 10)).rename(columns={"y": "outcome_of_it"})
    table = open_data(frame, group="ward")
    assert (table.group, table.target) == ("ward", "patient")
    assert table.columns["ward"].why == "says which rows belong together"
    with pytest.raises(DataError, match="is the target"):
        open_data(frame, "patient", group="patient")
    with pytest.raises(DataError, match=r"did you mean .ward"):
        open_data(frame, group="wrad")


def test_equal_and_nearly_equal_rows_belong_together():
    frame = visits().drop(columns="patient")
    frame["a"] = np.random.default_rng(1).integers(100, 1000, len(frame)) / 100  # in the middle of their rounding
    twin = frame.copy()
    twin["a"] *= 1 + 1e-7
    table = Table.from_frame(pd.concat([frame, twin, frame], ignore_index=True))
    assert len(np.unique(table.groups)) == 200
    assert (table.groups[:200] == table.groups[200:400]).all()


def test_a_given_split_that_parts_groups_is_said_with_a_count():
    frame = visits(split=np.tile(["train", "train", "train", "test", "test"], 40))
    table = Table.from_frame(frame)
    assert any("parts 40 groups: 80 of 80 test rows" in line for line in table.notes)
    whole = Table.from_frame(visits(split=np.repeat(["train", "test"], 100)))
    assert not any("parts" in line for line in whole.notes)


def test_texts_and_pairs_of_a_table_have_its_groups(tmp_path):
    words = ["the", "film", "was", "very", "good", "but", "long", "slow", "bright", "moments"]
    draw = np.random.default_rng(0)
    texts = [" ".join(draw.choice(words, 8)) + f" {row}" for row in range(60)]
    frame = pd.DataFrame({"text": texts, "label": draw.integers(0, 2, 60), "author": np.repeat(np.arange(12), 5)})
    frame.to_csv(tmp_path / "reviews.csv", index=False)
    data = open_data(tmp_path / "reviews.csv")
    assert isinstance(data, Texts) and data.group == "author"
    assert len(np.unique(data.groups)) == 12
    assert any("'author' says" in line for line in data.notes)
    frame.insert(1, "text2", texts[::-1])
    frame = frame.rename(columns={"text": "text1", "label": "score"})
    frame["score"] = draw.normal(size=60)
    frame.to_csv(tmp_path / "pairs.csv", index=False)
    pairs = open_data(tmp_path / "pairs.csv", target="score", group="author")
    assert isinstance(pairs, Pairs) and len(np.unique(pairs.groups)) <= 12


@pytest.fixture
def photos(tmp_path):
    draw = np.random.default_rng(0)
    for kind in ("cat", "dog"):
        (tmp_path / "photos" / kind).mkdir(parents=True)
        for number in range(6):
            pixels = draw.integers(0, 256, (8, 8, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / kind / f"p{number // 2}_{number}.png")
    return tmp_path / "photos"


def test_images_belong_together_by_their_paths(photos):
    data = open_data(photos, group=r"/(p\d)_")
    assert len(np.unique(data.groups)) == 3
    assert any("3 groups in 12 rows" in line for line in data.notes)
    for pattern, words in (
        (r"/p\d_", "0 groups in brackets"),
        ("(", "no regular expression"),
        ("(zebra)", "finds nothing"),
    ):
        with pytest.raises(DataError, match=words):
            open_data(photos, group=pattern)


def test_images_belong_together_by_a_column_of_the_table_beside_them(photos):
    names = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    table = pd.DataFrame({"filename": names, "caption": "a pet", "animal": [f"id{row // 4}" for row in range(12)]})
    table["taken"] = [f"2024-01-{row + 1:02d}" for row in range(12)]
    table.to_csv(photos / "labels.csv", index=False)
    data = open_data(photos, group="animal", time="taken")
    assert len(np.unique(data.groups)) == 3
    assert data.dates and np.ptp(data.times) == 11
    with pytest.raises(DataError, match="no table beside the images of photos has a column 'owner'"):
        open_data(photos, group="owner")


def test_texts_in_a_folder_belong_together_by_their_paths(tmp_path):
    for number in range(6):
        (tmp_path / f"speaker{number // 3}-{number}.txt").write_text(f"what was said, {number} times\n")
    data = open_data(tmp_path, group=r"^(speaker\d)")
    assert len(np.unique(data.groups)) == 2
    with pytest.raises(DataError, match="has no column 'speaker'"):
        open_data(tmp_path, group="speaker")


# ---------------------------------------------------------------------------------------------------------------- time


def test_time_parts_past_from_future_and_rows_of_one_time_stay_together():
    times = np.array([3.0, 1, 2, 2, 5, 4, 5, 0, 6, np.nan])
    part, left = by_time(times, np.arange(10), np.ones(10, bool))
    assert left == 0 and part[-1] == -1
    assert times[part == 0].max() < times[part == 1].min() <= times[part == 1].max() < times[part == 2].min()


def test_groups_stand_where_they_first_appear_and_later_rows_of_them_are_left_out():
    times = np.arange(100.0)
    part, left = by_time(times, np.arange(100) % 90, np.ones(100, bool))
    assert left == 10 and (part[90:] == -1).all()
    with pytest.raises(DataError, match="no rows to validate on once rows of groups that were met before are left out"):
        by_time(times, np.arange(100) % 3, np.ones(100, bool))


def test_moments_are_numbers_or_dates():
    assert moments(["1970-01-02", "", "2.5"])[[0, 2]].tolist() == [1.0, 2.5]
    with pytest.raises(DataError, match="'soon' is neither a number nor a date"):
        moments(["soon"])


def test_the_column_of_time_is_no_input_and_holds_numbers_or_dates():
    frame = visits(when=pd.date_range("2024-01-01", periods=200).astype(str))
    table = open_data(frame, time="when")
    assert not table.columns["when"].use and table.dates
    with pytest.raises(DataError, match="neither numbers nor dates"):
        open_data(frame.assign(place=np.tile(["x", "y"], 100)), time="place")
