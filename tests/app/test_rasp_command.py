"""The command `papertrial rasp`, as it is typed."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest


def test_one_line(papertrial):
    assert papertrial("rasp", "-c", 'reverse("abc")') == (0, "\t =  [c, b, a] (strings)\n", "")
    code, out, _ = papertrial("rasp", "-c", "hist_nobos; length;", "--example", "aab")
    assert code == 0 and 'hist_nobos("aab") = [2, 2, 1] (ints)' in out and "[3]*3 (ints)" in out


def test_a_file_and_what_it_loads(papertrial, tmp_path):
    folder = tmp_path / "programs"
    folder.mkdir()
    (folder / "parts.rasp").write_text("twice = indices * 2;")
    (folder / "main.rasp").write_text('load "parts";\nresult = twice + 1;\nresult("abc");\n')
    code, out, err = papertrial("rasp", folder / "main.rasp")
    assert (code, err) == (0, "") and out.splitlines()[-1] == "\t =  [1, 3, 5] (ints)"
    assert papertrial("rasp", folder / "main.rasp", "-c", 'result("a")')[1] == "\t =  [1] (ints)\n"


def test_json(papertrial):
    found = json.loads(papertrial("rasp", "-c", 'dyck1_ptf; a = [1]; full_s("ab");', "--example", "()(", "--json")[1])
    assert found[0] == {
        "name": "dyck1_ptf", "kind": "s-op", "layers": 2, "heads": 1, "example": "()(", "values": ["P", "T", "P"],
    }  # fmt: skip
    assert found[1] == {"name": "a", "kind": "list", "value": [1]}
    assert found[2]["values"] == [[True, True], [True, True]]
    found = json.loads(papertrial("rasp", "-c", "tokens_int;", "--json")[1])[0]
    assert found["layers"] == 0 and "invalid literal" in found["error"] and "values" not in found


def test_an_error_ends_a_command_with_its_place(papertrial, tmp_path):
    code, out, err = papertrial("rasp", "-c", "a = 1; b = a + c;")
    assert (code, out) == (2, "     value: a =  1\n")
    assert err == "error: c is not defined\n  a = 1; b = a + c;\n                 ^\n"
    (tmp_path / "wrong.rasp").write_text("a = 1;\nb = (a;\n")
    code, _, err = papertrial("rasp", "wrong.rasp")
    assert code == 2 and "wrong.rasp, line 2, column 7" in err
    code, _, err = papertrial("rasp", "nowhere.rasp")
    assert code == 2 and "nowhere.rasp is not there" in err
    (tmp_path / "latin.rasp").write_bytes('a = "é";'.encode("latin-1"))
    assert "UTF-8" in papertrial("rasp", "latin.rasp")[2]
    code, _, err = papertrial("rasp", "-c", "2 ^ 20000;")
    assert code == 2 and "digits" in err


@pytest.mark.parametrize("wrong", ["b = c;", "b = ;", 'b = "open', "b = (1", "? 3;", 'load "nowhere";', "1/0;"])
def test_results_before_an_error_are_kept(papertrial, tmp_path, wrong):
    """Whether a statement cannot be read or cannot be run: what stands before it was run, and is shown."""
    before = 'indices("abc"); a = 1;'
    shown = "\t =  [0, 1, 2] (ints)\n     value: a =  1\n"
    code, out, err = papertrial("rasp", "-c", f"{before} {wrong}")
    assert (code, out) == (2, shown) and err.startswith("error: ")
    (tmp_path / "part.rasp").write_text(f"{before}\n{wrong}\n2;")
    code, out, err = papertrial("rasp", "part.rasp")
    assert (code, out) == (2, shown) and "part.rasp, line" in err
    code, out, err = papertrial("rasp", "-c", f"{before} {wrong}", "--json")
    assert code == 2 and err.startswith("error: ")
    assert [found.get("value", found.get("values")) for found in json.loads(out)] == [[0, 1, 2], 1]
    code, out, err = papertrial("rasp", "-c", '5; load "part"; 6;')
    assert code == 2 and out.startswith("     value: out =  5\n") and "value: a =  1" in out and "6" not in out


def test_attention_is_restricted_from_the_command_line(papertrial, tmp_path):
    words = 'restrict(select(indices, indices, <=), window(1))("abcd")'
    code, out, _ = papertrial("rasp", "-c", words)
    assert code == 0 and [line.split("|")[-1].split() for line in out.splitlines() if "|" in line][-1] == ["1", "1"]
    region = "window(1) or select(indices, 0, ==)"
    code, out, err = papertrial("rasp", "-c", f'sort_bos("§dcba"); restrict(sort_bos, {region})("§dcba");')
    assert "[§, a, b, c, d]" in out and (code == 2 or out.count("[§, a, b, c, d]") == 1)
    code, out, _ = papertrial(
        "rasp", "--compile", f"restrict(hist_bos, {region})", "--vocabulary", "§ab", "--longest", 6, "--out", "near"
    )
    assert code == 0 and "1 layer, heads 1" in out and "are the interpreter's" in out
    code, _, err = papertrial("rasp", "-c", 'restrict(reverse, select(tokens, "a", ==));')
    assert code == 2 and "whatever the tokens are" in err and "^" in err
    assert "restrict takes an s-op or a selector" in papertrial("rasp", "-c", "restrict(3, window(1));")[2]
    assert "a region is a selector" in papertrial("rasp", "-c", "restrict(reverse, indices);")[2]


def test_the_prompt_reads_on_until_a_statement_ends_and_goes_on_after_errors(papertrial):
    typed = 'a = indices +\n 1;\nb = ;\nc;\nset example "xy"\na;\n1/tokens;\ndef f(x) {\n  return x + 1;\n}\nf(2);\nexit\n3;'
    code, out, err = papertrial("rasp", typed=typed)
    assert (code, err) == (0, "")
    assert out.splitlines() == [
        "     s-op: a",
        ' \t Example: a("hello") = [1, 2, 3, 4, 5] (ints)',
        "error: expected a value, not ';'",
        "  b = ;",
        "      ^",
        "error: c is not defined",
        "  c;",
        "  ^",
        "     s-op: a",
        ' \t Example: a("xy") = [1, 2] (ints)',
        "     s-op: out",
        ' \t Example: out fails on "xy"',
        "error: unsupported operand type(s) for /: 'int' and 'str'",
        "  1/tokens;",
        "  ^^^^^^^^",
        "     console function: f(x)",
        "     value: out =  3",
    ]
    assert "the text ends here" in papertrial("rasp", typed="a = (1 +")[1]
    assert papertrial("rasp", "-c", "a = 4;", "-i", typed="a;")[1].count("value: a =  4") == 2


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
def test_a_terminal_has_history_and_completion(tmp_path):
    """Two sessions: the second finds what the first typed with the arrow key, and completes a name."""
    import pty

    def session(typed: bytes) -> str:
        ours, theirs = pty.openpty()
        env = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "TERM": "dumb"}
        process = subprocess.Popen(
            [sys.executable, "-m", "papertrial", "rasp"], stdin=theirs, stdout=theirs, stderr=theirs, env=env
        )
        os.close(theirs)
        os.write(ours, typed)
        shown = b""
        while True:
            try:
                piece = os.read(ours, 4096)
            except OSError:  # the other end is closed
                break
            if not piece:
                break
            shown += piece
        assert process.wait(60) == 0
        os.close(ours)
        return shown.decode()

    assert '("hello") = [1, 2, 3, 4, 5] (ints)' in session(b"first = indices + 1;\nquit\n")
    assert "first = indices + 1;" in (tmp_path / "papertrial" / "rasp_history").read_text()
    again = session(b"\x1b[A\x1b[A\nlen\tth;\nquit\n")
    assert '("hello") = [1, 2, 3, 4, 5] (ints)' in again


def test_compile_writes_a_transformer_that_was_compared(papertrial, tmp_path):
    code, out, err = papertrial(
        "rasp", "--compile", "sort_bos", "--vocabulary", "§abc", "--longest", 6, "--out", "sorter"
    )
    assert (code, err) == (0, "") and "2 layers, heads 1 + 1" in out and "are the interpreter's" in out
    from papertrial.papers.rasp.compiled import load

    assert load(tmp_path / "sorter")(["§cab"]) == [list("§abc")]
    *_, imported, asked = out.splitlines()  # and says how it is asked
    said: dict = {}
    exec(imported.removeprefix("in Python").strip(), said)
    call, _, answer = asked.partition("   gives ")
    assert call.strip() == "load('sorter')(['§abc'])" and str(eval(call.strip(), said)) == answer
    (tmp_path / "my.rasp").write_text("plus = indices + 1;")
    found = json.loads(papertrial("rasp", "my.rasp", "--compile", "plus", "--longest", 4, "--out", "plus", "--json")[1])
    assert found["different"] == 0 and found["layers"] == 0 and found["compared"] > 100


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--compile", "reverse"], "needs a folder"),
        (["--compile", "full_s", "--out", "x"], "only s-ops compile"),
        (["--compile", "nothing", "--out", "x"], "not defined"),
        (["--compile", "average(indices)", "--longest", 99, "--out", "x"], "takes more than 4,096"),
        (["--longest", 0], "longest"),
    ],
)
def test_what_cannot_be_compiled(papertrial, tmp_path, words, message):
    code, _, err = papertrial("rasp", *words)
    assert code == 2 and message in err and not (tmp_path / "x").exists()


def test_it_is_a_paper_that_trains_nothing(papertrial):
    assert "papertrial rasp --help" in papertrial("read", "rasp")[1]
    code, _, err = papertrial("fit", "rasp", "--data", "digits")
    assert code == 2 and "cannot be trained: it trains nothing: papertrial rasp" in err
    code, _, err = papertrial("compare", "rasp", "--data", "digits")
    assert code == 2 and "trains nothing" in err
