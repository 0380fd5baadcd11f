"""RASP: the language and its interpreter."""

from __future__ import annotations

import operator
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from papertrial.papers import rasp
from papertrial.papers.rasp import formatting
from papertrial.papers.rasp.graph import COMPARE, EVERYWHERE, INPUTS, Node, constant, make, restricted
from papertrial.papers.rasp.language import Session
from papertrial.papers.rasp.layers import attention, plan
from papertrial.papers.rasp.run import Run
from papertrial.papers.rasp.syntax import RaspError, Source, Unfinished, parse
from rasp_programs import booleans, numbers


@pytest.fixture
def session() -> Session:
    return Session()


def lines(session: Session, text: str) -> list[str]:
    return [line for name, value in session.run(Source(text)) for line in session.describe(name, value)]


# values, worked out by hand from the paper


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('reverse("hello")', list("olleh")),
        ('hist_bos("§aabbaa")', [0, 4, 4, 2, 2, 4, 4]),
        ('hist_nobos("aabbaa")', [4, 4, 2, 2, 4, 4]),
        ('hist2_bos("§aabbc")', [0, 2, 2, 2, 2, 1]),
        ('sort_bos("§dacb")', list("§abcd")),
        ('sort_by_most_freq("§abbccc")', list("§cba§§§")),
        ('dyck1_ptf("()())")', list("PTPTF")),
        ('dyck2_ptf("({)}")', list("PPFF")),
        ('dyck2_ptf("({})")', list("PPPT")),
        ('length("abc")', [3, 3, 3]),
        ('selector_width(select(tokens, tokens, ==))("hello")', [1, 1, 2, 2, 1]),
        ('has_focus(select(tokens, "l", ==) and select(indices, indices, <))("hello")', [False] * 3 + [True] * 2),
        ('average(indices)("abcd")', [1.5] * 4),
        ('count(tokens, "l")("hello")', [2] * 5),
        ('contains(tokens, "z")("hello")', [False] * 5),
        ('max(indices, 2)("abcd")', [2, 2, 2, 3]),
        ('min(indices, 2)("abcd")', [0, 1, 2, 2]),
        ('shift(tokens, 2, "_")("abcd")', list("__ab")),
        ('load_from_location(tokens, length - 1)("abcd")', list("dddd")),
        ('mark_first_instance(tokens, "l")("hello")', [False, False, True, False, False]),
        ('mark_last_instance(tokens, "l")("hello")', [False, False, False, True, False]),
        ('aggregate(select_from_first(tokens, "l"), indices)("hello")', [2] * 5),
        ('aggregate(select_from_last(tokens, "l"), indices)("hello")', [3] * 5),
        ('sort(tokens, -indices)("abc")', list("cba")),
        ('aggregate(select_next_identical(tokens), indices, -1)("abcab")', [3, 4, -1, -1, -1]),
        ('tokens[0]("abc")', list("aaa")),
        ('tokens[-1]("abc")', list("ccc")),
        ('[5, 8, 2][indices]("abc")', [5, 8, 2]),
        ('"xyz"[indices]("abc")', list("xyz")),
        ('{"a": 1, "b": 2}[tokens]("ab")', [1, 2]),
        ('(tokens in ["a", "b"])("abc")', [True, True, False]),
        ('("a" in tokens)("bab")', [True] * 3),
        ("tokens_int([3, 4])", [3, 4]),
        ('tokens_int("34")', [3, 4]),
        ("tokens_float([3, 4])", [3.0, 4.0]),
        ("tokens_bool([0, 2])", [False, True]),
        ('tokens_asis(["a", "b"])', ["a", "b"]),
        ('(1 if indices % 2 else 0)("abcd")', [0, 1, 0, 1]),
        ('(2 ^ indices)("abcd")', [1, 2, 4, 8]),
        ('round(indices / 2)("abcdef")', [0, 0, 1, 2, 2, 2]),
        ('indicator(tokens == "b")("abc")', [0, 1, 0]),
        ('(not tokens == "b")("abc")', [False] * 3),  # (not tokens) == "b"
        ('aggregate(select(indices, indices, <), indices)("abcd")', [0, 0, 0.5, 1.0]),
        ('aggregate(select(indices, indices, <), tokens, "-")("ab")', ["-", "a"]),
    ],
)
def test_values_worked_out_by_hand(session, expression, value):
    assert list(session.evaluate(expression)) == value


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("not 3 == 4", False),  # (not 3) == 4
        ("1 if True else 2 if False else 3", 3),  # (1 if True else 2) if False else 3
        ("1 if False else 2 if True else 3", 2),
        ("2 ^ 3 ^ 2", 64),
        ("-2 ^ 2", 4),
        ("1 + 2 % 2 * 3", 3),  # % is looser than *
        ("10 - 2 - 3", 5),
        ("True or True and False", False),  # and, or: one level
        ("False and 2 in [2]", False),  # (False and 2) in [2]
        ("1 in [1] if False else [2]", False),  # in is the loosest
        ("round(2.5)", 2),
        ("len([i + 1 for i in range(2, 8, 3)])", 2),
        ("[a + b for a, b in zip([1, 2], [3, 4])]", [4, 6]),
        ("[i * x for i, x in enumerate([5, 6])]", [0, 6]),
        ('{x: x + x for x in ["a"]}', {"a": "aa"}),
        ("[1, 2] + [3]", [1, 2, 3]),
        ('"abc"[-1]', "c"),
        ("{1: 2}[1]", 2),
    ],
)
def test_precedence_and_plain_values(session, expression, value):
    found = session.evaluate(expression)
    assert found == value and type(found) is type(value)


def test_the_order_of_the_arguments_of_select(session):
    """Keys first: each position looks at those before it."""
    matrix = session.evaluate('select(indices, indices, <)("abc")').matrix
    np.testing.assert_array_equal(matrix, [[0, 0, 0], [1, 0, 0], [1, 1, 0]])
    matrix = session.evaluate('select(tokens, "b", ==)("abc")').matrix
    np.testing.assert_array_equal(matrix, [[0, 1, 0]] * 3)
    matrix = session.evaluate('(not select(indices, 1, >=) or select(indices, 2, ==))("abc")').matrix
    np.testing.assert_array_equal(matrix, [[1, 0, 1]] * 3)


# parity with a second interpreter, one position at a time


def slow(node: Node, tokens: list, known: dict, reach=None):
    """A list of values, or of rows, written from the text of the paper in plain Python.

    reach: of attention, so many positions to each side; the first position is always in reach.
    """
    if node in known:
        return known[node]
    size = range(len(tokens))
    args = [slow(arg, tokens, known, reach) for arg in node.args]
    if node.kind == "constant":
        out = [node.detail] * len(tokens)
    elif node.kind == "input":
        out = list(size) if node.f == "indices" else [str(token) for token in tokens]
    elif node.kind == "map":
        python = {"+": operator.add, "-": operator.sub, "*": operator.mul, "%": operator.mod, "/": operator.truediv,
                  "round": round, "indicator": int, "not": operator.not_, "negative": operator.neg}  # fmt: skip
        if node.f == "choice":
            out = [a if c else b for a, c, b in zip(*args, strict=True)]
        elif node.f in ("and", "or"):
            both = {"and": lambda a, b: bool(a and b), "or": lambda a, b: bool(a or b)}[node.f]
            out = [both(a, b) for a, b in zip(*args, strict=True)]
        else:
            out = [{**python, **COMPARE}[node.f](*values) for values in zip(*args, strict=True)]
    elif node.kind == "select":
        out = [[COMPARE[node.f](key, query) for key in args[0]] for query in args[1]]
    elif node.kind == "neither":
        out = [[not value for value in row] for row in args[0]]
    elif node.kind in ("both", "either"):
        join = all if node.kind == "both" else any
        out = [[join(pair) for pair in zip(*rows, strict=True)] for rows in zip(*args, strict=True)]
    else:
        out = []
        for query, row in enumerate(args[0]):
            near = [reach is None or key == 0 or abs(key - query) <= reach for key in size]
            chosen = [value for seen, close, value in zip(row, near, args[1], strict=True) if seen and close]
            default = 0 if node.detail is None else node.detail
            out.append(default if not chosen else chosen[0] if len(chosen) == 1 else sum(chosen) / len(chosen))
    known[node] = out
    return out


@settings(max_examples=150, deadline=None)
@given(numbers(3) | booleans(3), st.text("abc", min_size=1, max_size=7))
def test_the_vectorised_interpreter_equals_plain_python(node, text):
    wanted, found = slow(node, list(text), {}), Run(text)(node).tolist()
    assert found == pytest.approx(wanted, rel=1e-12)
    # a whole number stays whole, a mean is a fraction: the printed forms are the same
    assert [isinstance(value, float) for value in found] == [isinstance(value, float) for value in wanted]


@settings(max_examples=100, deadline=None)
@given(numbers(3) | booleans(3), st.text("abc", min_size=1, max_size=7), st.integers(0, 3))
def test_a_restricted_program_equals_plain_python(node, text, reach):
    region = Session().evaluate(f"window({reach}) or select(indices, 0, ==)").node
    near = restricted(node, region)
    try:
        wanted = slow(node, list(text), {}, reach)
    except (TypeError, ZeroDivisionError):  # what is out of sight may leave nothing to compute with
        with pytest.raises(RaspError):
            Run(text)(near)
        return
    assert Run(text)(near).tolist() == pytest.approx(wanted, rel=1e-12)
    assert [len(layer) for layer in plan(near).selectors] == [len(layer) for layer in plan(node).selectors]
    assert Run(text)(restricted(node, EVERYWHERE)).tolist() == Run(text)(node).tolist()


def test_a_region_is_about_positions_alone(session):
    program = session.evaluate("reverse").node
    for text in ('select(tokens, "a", ==)', "select(indices, length, <)", "window(1) or select(tokens, tokens, ==)"):
        with pytest.raises(RaspError, match="whatever the tokens are"):
            restricted(program, session.evaluate(text).node)
    matrix = session.evaluate("restrict(full_s, window(1))")("abcd").matrix
    np.testing.assert_array_equal(matrix, abs(np.subtract.outer(range(4), range(4))) <= 1)


def test_attention_is_even_over_what_is_selected():
    first, second = attention(rasp.program("hist2_bos"), "§aab")
    assert first.shape == (2, 4, 4) and second.shape == (1, 4, 4)
    sums = np.concatenate([first, second]).sum(-1)
    assert set(np.round(sums, 12).ravel()) <= {0.0, 1.0}
    same = Run("§aab")(plan(rasp.program("hist2_bos")).selectors[0][0])
    np.testing.assert_allclose(first[0], same / same.sum(1, keepdims=True))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(-(10**20), 10**20), min_size=1, max_size=5), st.integers(-3, 3))
def test_whole_numbers_of_any_size_are_exact(values, other):
    program = make("map", "*", (make("map", "+", (INPUTS["tokens_int"], constant(other))), INPUTS["tokens_int"]))
    assert Run(values)(program).tolist() == [(value + other) * value for value in values]
    same = make("select", "==", (INPUTS["tokens_int"], INPUTS["tokens_int"]))
    assert Run(values)(same).tolist() == [[a == b for a in values] for b in values]
    mean = make("aggregate", "", (make("select", "==", (constant(1), constant(1))), INPUTS["tokens_int"]))
    assert Run(values)(mean).tolist() == [values[0] if len(values) == 1 else sum(values) / len(values)] * len(values)


def test_equal_steps_are_one_and_are_computed_once(session, monkeypatch):
    from papertrial.papers.rasp import run

    calls = []
    compare = run.compare
    monkeypatch.setattr(run, "compare", lambda *args: calls.append(args[0]) or compare(*args))
    text = "aggregate(select(indices, 3, <), indices)"
    program = session.evaluate(f"{text} + {text} * 2")
    assert len([step for step in program.node.steps() if step.kind == "aggregate"]) == 1
    program("abcd")
    assert calls == ["<"]
    assert session.evaluate("1 + indices").node is not session.evaluate("1.0 + indices").node
    assert session.evaluate("indices == True").node is not session.evaluate("indices == 1").node


def test_a_long_chain_needs_no_deep_recursion(session):
    session.run(Source("c = indices; for i in range(5000) { c = c + i; }"))
    assert list(session.evaluate('c("ab")')) == [12497500, 12497501]


# statements


def test_functions_see_the_names_they_were_written_among(session):
    session.run(Source("a = 3; def f(x) { b = a + x; return b, x; } a = 10; y, z = f(1);"))
    assert (session.evaluate("y"), session.evaluate("z")) == (11, 1)
    with pytest.raises(RaspError, match="b is not defined"):
        session.evaluate("b")


def test_names_keep_the_program_they_were_given(session):
    session.run(Source("a = indices; b = a; a = a + 1;"))
    assert list(session.evaluate('b("ab")')) == [0, 1] and list(session.evaluate('a("ab")')) == [1, 2]


def test_loops_and_comments(session):
    session.run(
        Source(
            "# sums\nt = 0;\nfor a, b in [[1, 2], [3, 4]] { # pairs\n t = t + a * b; }\nfor k in {5: 6} { t = t + k; }"
        )
    )
    assert session.evaluate("t") == 19


def test_files_keep_their_private_names(session, tmp_path):
    (tmp_path / "inner.rasp").write_text('b = 7; _b = 8; c = indices + b; c("abc");')
    (tmp_path / "outer.rasp").write_text('load "inner"; d = c * 2; _hidden = 1;')
    session.folder = tmp_path
    assert lines(session, 'f = 1; load "outer";')[1:] == ["     value: b =  7", "     s-op: c", "     s-op: d"]
    assert list(session.evaluate('d("ab")')) == [14, 16]
    for name in ("_b", "_hidden"):
        with pytest.raises(RaspError, match="not defined"):
            session.evaluate(name)
    (tmp_path / "asks.rasp").write_text("g = f;")
    with pytest.raises(RaspError, match="f is not defined"):  # a file does not see who loads it
        session.run(Source('load "asks";'))
    (tmp_path / "self.rasp").write_text('load "self";')
    with pytest.raises(RaspError, match="loads itself"):
        session.run(Source('load "self";'))
    with pytest.raises(RaspError, match=r"no file nowhere\.rasp"):
        session.run(Source('load "nowhere";'))


@pytest.mark.parametrize(
    "name", ["indices", "length", "True", "out", "range", "sort", "select", "tokens_str", "aggregate"]
)
def test_reserved_names_cannot_be_set(session, name):
    with pytest.raises(RaspError, match="reserved"):
        session.run(Source(f"{name} = 3;"))


def test_what_may_be_set(session):
    session.run(Source("tokens = tokens_int; reverse = 3; def f(count) { sort = count; return sort; } a = f(4);"))
    assert session.evaluate("a") == 4 and list(session.evaluate('tokens("12")')) == [1, 2]


# what is printed


def test_results_are_shown_on_the_example(session):
    assert lines(session, "indices + indices;") == [
        "     s-op: out",
        ' \t Example: out("hello") = [0, 2, 4, 6, 8] (ints)',
    ]
    assert lines(session, 'set example "hey"\nprevs = select(indices, indices, <);') == [
        "     selector: prevs",
        " \t Example:",
        " \t\t\t     h e y",
        " \t\t\t h |      ",
        " \t\t\t e | 1    ",
        " \t\t\t y | 1 1  ",
    ]
    assert lines(session, 'aggregate(full_s, indicator(tokens == "e"));')[1].endswith("[0.333]*3 (floats)")
    assert lines(session, '"e" in tokens;')[1].endswith("[T]*3 (bools)")
    assert lines(session, "show example") == ['\ts-op example: "hey"', '\tselector example: "hey"']
    assert lines(session, "set s-op example [1, 2]\nshow s-op example\ntokens_int;")[::2] == [
        "\ts-op example: [1, 2]",
        " \t Example: tokens_int([1, 2]) = [1, 2] (ints)",
    ]
    assert lines(session, "examples off\nindices;\nfull_s;") == ["     s-op: indices", "     selector: full_s"]
    assert len(lines(session, "s-op examples on\nindices;\nfull_s;")) == 3
    assert len(lines(session, "selector examples on\nfull_s;")) == 6
    assert lines(session, 'full seq display on\nreverse("abc");') == [
        "\t = ",
        " \t\tinput:   a b c \t (strings)",
        " \t\toutput:  c b a \t (strings)",
    ]
    assert lines(session, 'length("abc");') == ["\t = [3]*3 (ints) [skipped full display: identical values]"]


def test_other_values_are_shown(session):
    assert lines(session, 'a, b = 3, "x";') == ["     value: a =  3", '     value: b =  "x"']
    assert lines(session, "[1, [2]];")[0] == "     list: out = ["
    assert lines(session, 'vowels = ["a", "e"];') == ["     list: vowels = ['a', 'e']"]
    assert lines(session, 'examples off\nd = {"k": indices + 1};') == [
        "     dict: d = {",
        '\t\t\t "k" :     s-op: ( indices + 1 )',
        "                 }",
    ]
    assert lines(session, "def f(a, b) { return a; }") == ["     console function: f(a, b)"]
    assert lines(session, "exit\n5;") == []


def test_draw_shows_patterns_layer_by_layer(session):
    shown = lines(session, 'draw(reverse, "abc");')
    assert shown[0] == "reverse: 2 layers, heads 1 + 1"
    assert shown[-1] == "\t =  [c, b, a]"
    assert "     [a, b, c] -> [c, b, a]" in shown and "    a |     1" in shown
    assert lines(session, 'draw(select(indices, indices, <=), "ab");')[-2:] == ["    a | 1  ", "    b | 1 1"]


def test_a_wide_token_keeps_the_table_straight():
    table = formatting.table(np.eye(2, dtype=bool), ["ab", "c"])
    assert table[0] == "     ab c" and table[1] == " ab |  1  "


# errors


@pytest.mark.parametrize(
    ("text", "message", "under"),
    [
        ("rverse;", "rverse is not defined; did you mean 'reverse'?", "rverse"),
        ("1 +* 2;", "expected a value, not '\\*'", "*"),
        ("a = (1 + 2;", "expected '\\)', not ';'", ";"),
        ("tokens & 1;", "'&' means nothing", "&"),
        ("a = \"open;", "no closing quote", '"'),
        ("1 + \"a\";", "unsupported operand", '1 + "a"'),
        ("x = 1 / tokens; x(\"ab\");", "unsupported operand", "1 / tokens"),
        ("select(indices, indices, +);", "expected one of ==", "+"),
        ("aggregate(full_s, tokens)(\"ab\");", "no mean", "aggregate(full_s, tokens)"),
        ("aggregate(tokens, full_s);", "takes a selector first, not an s-op", "tokens"),
        ("full_s + 1;", "not to selectors", "full_s + 1"),
        ("full_s and tokens;", "not one of each", "full_s and tokens"),
        ("count(tokens);", "takes 2 arguments \\(seq, atom\\) and got 1", "count(tokens)"),
        ("[1][3];", "out of range", "[1][3]"),
        ("{1: 2}[3];", "3 is no key", "{1: 2}[3]"),
        ("[1, 2][indices](\"abc\");", "out of range", "[1, 2][indices]"),
        ("tokens[indices];", "whole number", "indices"),
        ("a, b = [1, 2, 3];", "2 names but 3 values", "a, b = [1, 2, 3]"),
        ("for i in 3 { a = i; }", "a list or a dict", "3"),
        ("zip([1], [1, 2]);", "one length", "zip([1], [1, 2])"),
        ("indicator(3);", "takes an s-op", "3"),
        ("{indices: 1};", "keys of a dict are atoms", "indices"),
        ("3(4);", "cannot be called", "3"),
        ("tokens(\"\");", "one token or more", "tokens(\"\")"),
        ("tokens_asis([\"a\", 3]);", "of one sequence have one type", 'tokens_asis(["a", 3])'),
        ("(1 if indices else \"a\")(\"ab\");", "of one sequence have one type", '(1 if indices else "a")'),
        ("tokens_int(\"ab\");", "invalid literal", "tokens_int(\"ab\")"),
        ("range(10 ^ 12);", "longest", "range(10 ^ 12)"),
        ("def f(x) { return f(x); } f(3);", "calls itself", "f(3)"),
        ("1" + " + 1" * 5000 + ";", "nested too deeply", "1" + " + 1" * 5000),
        ("(" * 5000, "nested too deeply", "("),
        ("set example []", "not empty", "[]"),
        ("def f() { a = 1; }", "expected a value|expected", "}"),
    ],
)  # fmt: skip
def test_errors_point_at_the_place(session, text, message, under):
    with pytest.raises(RaspError, match=message) as caught:
        session.run(Source(text))
    where = caught.value.where
    assert where is not None and where.source.text[where.start : where.end] == under
    _, line, carets = caught.value.page().splitlines()
    assert line[carets.index("^") :].startswith(under[:90])


def test_an_error_in_a_file_names_the_line(session):
    with pytest.raises(RaspError) as caught:
        session.run(Source("a = 1;\n\tb = a + c;\n", "my.rasp"))
    assert caught.value.page() == "error: c is not defined\nmy.rasp, line 2, column 10\n  \tb = a + c;\n  \t        ^"


@pytest.mark.parametrize("text", ["a = 1", "def f(x) {", "for i in [1] {", "[1, 2", "select(a,", 'load "x"', "1 +"])
def test_what_more_lines_may_complete(text):
    with pytest.raises(Unfinished):
        parse(Source(text))


@settings(max_examples=200, deadline=None)
@given(st.text("ab1.\"'()[]{},;=+-*/%^<>! \n#\t§", max_size=25))
def test_any_text_parses_or_is_an_error_with_a_place(text):
    try:
        parse(Source(text))
    except RaspError as error:
        found = error
    else:
        return
    assert found.where is not None and "^" in found.page()


# the paper's page


def test_layers_and_heads_of_other_programs(session):
    assert plan(session.evaluate("indices + 1").node).layers == 0
    found = plan(session.evaluate("sort(tokens, tokens)").node)
    assert (found.layers, found.heads) == (2, 2)
    assert plan(session.evaluate("dyck3_ptf").node).sentence() == "4 layers, heads 1 + 2 + 1 + 1"
    merged = plan(session.evaluate("aggregate(select(1, 1, ==), indices) + aggregate(select(1, 1, ==), 1)").node)
    assert merged.heads == 1  # two selectors with the same parts are one head


def test_program_finds_names_and_expressions():
    assert rasp.program("reverse").depth == 2
    with pytest.raises(TypeError, match="no s-op"):
        rasp.program("[1]")


def test_the_language_needs_no_torch():
    code = (
        "import sys; from papertrial.papers.rasp.language import Session; Session(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
