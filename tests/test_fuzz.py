"""`make fuzz`: its damage comes back with its number, and it notices what it looks for."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from tools.fuzz.damage import damages
from tools.fuzz.samples import DATA, OWN, SETTINGS, setting
from tools.fuzz.trial import BYTES, SECONDS, Ended

TEXTS = {
    "a.json": b'{"a": {"b": [1, 2]}, "c": null}',
    "a.jsonl": b'{"step": 1}\n{"step": 2}\n',
    "a.csv": b"x,y\n1,a\n2,b\n",
    "a.npy": b"\x93NUMPY\x01\x00\x36\x00{'descr': '<i8', 'fortran_order': False, 'shape': (2,), }" + bytes(16),
    "a.safetensors": (2).to_bytes(8, "little") + b"{}" + bytes(8),
    "a.bin": bytes(range(200)),
    "empty.json": b"",
}


@pytest.mark.parametrize("name", TEXTS)
def test_the_same_number_is_the_same_damage_and_most_numbers_change_the_file(name):
    changed = 0
    for damage in damages(Path(name)):
        for seed in range(8):
            once, again = (damage(TEXTS[name], random.Random(seed)) for _ in range(2))
            assert once == again and isinstance(once[0], bytes) and once[1]
            changed += once[0] != TEXTS[name]
    assert changed > 4 * len(damages(Path(name)))


def test_damage_of_json_is_sometimes_still_json_and_sometimes_what_python_cannot_write():
    tried = [damages(Path("a.json"))[-1](TEXTS["a.json"], random.Random(seed))[0] for seed in range(60)]
    whole = 0
    for content in tried:
        try:
            json.loads(content)
            whole += 1
        except (ValueError, RecursionError):
            pass
    assert 10 < whole < 60


@pytest.mark.parametrize(
    ("code", "said", "seconds", "peak", "finding"),
    [
        (0, "fine", 1.0, 0, ""),
        (2, "papertrial: d.csv holds no rows", 1.0, 0, ""),
        (2, "", 1.0, 0, "said nothing"),
        (1, "papertrial: no", 1.0, 0, "exit code 1"),
        (1, "papertrial: a defect of papertrial: KeyError", 1.0, 0, "a defect of papertrial"),
        (-6, "", 1.0, 0, "ended by signal 6"),
        (0, "fine", SECONDS + 1, 0, f"took over {SECONDS} s"),
        (0, "fine", 1.0, BYTES + 1, "took 2.0 GiB"),
        (0, "\x1b[31mred", 1.0, 0, "printed ['\\x1b'] raw"),
        (0, "wrote outside: os.mkdir /x", 1.0, 0, "wrote outside"),
    ],
)
def test_what_is_a_finding(code, said, seconds, peak, finding):
    assert Ended(["look"], code, said, seconds, peak).finding == finding


def test_samples_have_names_of_their_own():
    names = [sample.name for sample in (*DATA, *OWN, *SETTINGS)]
    assert len(set(names)) == len(names) > 50


def test_settings_are_drawn_from_the_ranges_that_methods_state():
    drawn = {setting("rtdl", random.Random(seed)) for seed in range(40)}
    assert drawn == {setting("rtdl", random.Random(seed)) for seed in range(40)} and len(drawn) > 20
    assert {"width", "lr"} & {words.partition("=")[0] for words in drawn}
