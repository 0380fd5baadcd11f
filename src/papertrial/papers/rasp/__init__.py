"""RASP - a programming language whose operations are the layers of a transformer.

Gail Weiss, Yoav Goldberg, Eran Yahav. ICML 2021, arXiv 2106.06981.

The idea
    A transformer computes sequences from sequences: attention moves values between positions, feed-forward layers work
    at each position alone. A language with these two operations and no other lets one think in transformers: a program
    for a task says how many layers and heads a transformer needs for it, and can be turned into one.

The equation
    select(k, q, op)          row i, column j: whether op(k_j, q_i). Keys come first.                        (sec. 3)
    aggregate(sel, v)_i       mean of v_j over the j that row i selects; one value alone is brought as it is  (sec. 3)
    selector_width(sel)       with w_i = aggregate(sel or first, [j = 0]): 1 / w_i - 1 + [0 in row i]         (sec. 3)
    layer of an s-op          the longest chain of aggregates below it; heads of a layer: its distinct selectors  (sec. 5)

What matters
    `select(k, q, <)` asks whether the key is smaller than the query. Aggregates are means: round before comparing.
    Nothing selected gives the default, 0 when left out. `length` is itself an aggregate and costs a head. A token that is
    nothing else in front of the input (the programs that end in _bos) saves selector_width its second head.
    `restrict(program, region)` keeps every selector false outside of a region, as sparse attention does (sec. 4): most
    positions out of each other's sight, sorting fails, whoever computes it.

Requires / Offers
    Requires a program. Offers its values on any input, its layers and heads, and a PyTorch transformer with its weights.

Relations
    Tracr (arXiv 2301.05062) compiles RASP to transformers in JAX, from Python instead of the language.

Try
    papertrial rasp                                       papertrial rasp FILE.rasp
    papertrial rasp -c 'reverse("abc"); draw(hist_bos, "§aab");'
    papertrial rasp -c 'restrict(hist_bos, window(1) or select(indices, 0, ==))("§aabba")'
    papertrial rasp --compile sort_bos --vocabulary "§abc" --longest 8 --out sorter

Cost
    interpreter: milliseconds for 512 tokens. Compiler: seconds up to 32 tokens. Learning: a minute of
    a CPU for each trained transformer.

Notation
    q queries, k keys, N tokens; an s-op is a function of the input that gives a value for each token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from papertrial.core.paper import Paper
from papertrial.core.recipe import Recipe, checked, sourced

if TYPE_CHECKING:
    from papertrial.papers.rasp.compiled import Compiled
    from papertrial.papers.rasp.graph import Node

PAPER = Paper(
    id="rasp",
    title="Thinking Like Transformers",
    kind="system",
    command="papertrial rasp",
    idea="A language whose operations map to attention and feed-forward layers, to predict what layers a task needs.",
    authors="Gail Weiss, Yoav Goldberg, Eran Yahav",
    year=2021,
    arxiv="2106.06981",
    month="2021-07",
    tags=("theory", "attention", "interpretability"),
    official="https://github.com/tech-srl/RASP",
    licence="MIT",
    caveats=(
        "In the authors' grammar all binary operators group to the left, `a if c else b if d else e` too, and `not` binds "
        "tighter than any of them: `not a == b` is `(not a) == b`. It is the same here: write brackets.",
        "The text gives Dyck-2 three layers and one head, with an operation that the authors' code lacks (best); the program "
        "there, and here, takes four layers and two heads (paper_examples.rasp).",
        "Layers and heads are what a program takes, which is no less than what the task takes: nothing is proven minimal.",
        "A feed-forward layer is taken to compute anything. The compiled transformers need up to five in a layer.",
        "The authors reject an s-op that fails on the example at hand; here it is kept, and the failure is shown.",
    ),
)


@checked
@dataclass(frozen=True)
class Config:
    longest: int = sourced(32, "papertrial default: tokens that a compiled program reads", "[1, 4096]")
    sharpness: float = sourced(
        128.0, "papertrial default: what a failed condition costs before the softmax", "(0, 1e6]"
    )
    limit: int = sourced(4096, "papertrial default: most values of one s-op in a compiled program", "[1, 1000000]")


def program(name: str) -> Node:
    """The s-op that an expression of the language stands for, such as `reverse` or `length`."""
    from papertrial.papers.rasp.language import Program, Session

    found = Session().evaluate(name)
    if not isinstance(found, Program):
        raise TypeError(f"{name} is no s-op or selector")
    return found.node


def as_transformer(name: str | Node, vocabulary: Sequence[Any], config: Config | None = None) -> Compiled:
    """A program with the weights that compute it: `.model` is a torch module, `.save(folder)` writes it.

    vocabulary: the tokens it reads, a string of letters or a list.  Raises RaspError for what does not compile, see
    `compiler.compile_program`.
    """
    from papertrial.papers.rasp.compiler import compile_program

    config = config or Config()
    node = program(name) if isinstance(name, str) else name
    return compile_program(node, vocabulary, config.longest, config.sharpness, config.limit)


recipes = {
    "paper": Recipe(
        "paper",
        config={"longest": 100},
        source="authors' experiments: strings of up to 100 tokens",
        cost="seconds on a CPU; reverse and the histograms compile at this length, sorting and Dyck up to 40 or 50 tokens",
    ),
    "base": Recipe("base", source="papertrial", cost="seconds on a CPU"),
    "tiny": Recipe("tiny", config={"longest": 8}, source="small enough for tests", cost="seconds on a CPU"),
}
