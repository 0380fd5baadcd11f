"""Random RASP programs, for the tests of the interpreter and of the compiler."""

from __future__ import annotations

from hypothesis import strategies as st

from papertrial.papers.rasp.graph import COMPARE, INPUTS, Node, constant, make


def numbers(depth: int) -> st.SearchStrategy[Node]:
    leaves = st.sampled_from([INPUTS["indices"], constant(2), constant(-1), constant(0.5)])
    if depth == 0:
        return leaves
    below, tests, looks = numbers(depth - 1), booleans(depth - 1), selectors(depth - 1)
    return st.one_of(
        leaves,
        st.builds(lambda f, a, b: make("map", f, (a, b)), st.sampled_from(["+", "-", "*"]), below, below),
        st.builds(lambda a: make("map", "%", (a, constant(3))), below),
        st.builds(lambda a: make("map", "/", (a, constant(4))), below),
        st.builds(lambda f, a: make("map", f, (a,)), st.sampled_from(["round", "negative"]), below),
        st.builds(lambda a: make("map", "indicator", (a,)), tests),
        st.builds(lambda a, c, b: make("map", "choice", (a, c, b)), below, tests, below),
        st.builds(lambda s, a, d: make("aggregate", "", (s, a), d), looks, below, st.sampled_from([None, 3])),
    )


def booleans(depth: int) -> st.SearchStrategy[Node]:
    leaves = st.sampled_from([make("map", "==", (INPUTS["tokens_str"], constant(letter))) for letter in "ab"])
    if depth == 0:
        return leaves
    values, below = numbers(depth - 1), booleans(depth - 1)
    return st.one_of(
        leaves,
        st.builds(lambda f, a, b: make("map", f, (a, b)), st.sampled_from(sorted(COMPARE)), values, values),
        st.builds(lambda f, a, b: make("map", f, (a, b)), st.sampled_from(["and", "or"]), below, below),
        st.builds(lambda a: make("map", "not", (a,)), below),
    )


def selectors(depth: int) -> st.SearchStrategy[Node]:
    tokens = make("select", "==", (INPUTS["tokens_str"], INPUTS["tokens_str"]))
    if depth == 0:
        return st.sampled_from([tokens, make("select", "<", (INPUTS["indices"], INPUTS["indices"]))])
    below = selectors(depth - 1)
    return st.one_of(
        st.builds(
            lambda f, a, b: make("select", f, (a, b)),
            st.sampled_from(sorted(COMPARE)),
            numbers(depth - 1),
            numbers(depth - 1),
        ),
        st.builds(lambda kind, a, b: make(kind, "", (a, b)), st.sampled_from(["both", "either"]), below, below),
        st.builds(lambda a: make("neither", "", (a,)), below),
    )
