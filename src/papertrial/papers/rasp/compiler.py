"""From a program to the weights of a transformer that computes it, exactly on every input up to a length.

Every s-op has finitely many values on inputs of a known alphabet and length. It travels as a *category*: one line of
the residual stream for each value, 1 at the line of its value and 0 elsewhere.

    map             a feed-forward map that is a table: a hidden unit for each combination of values that matters,
                    relu(a + b - 1) for two. Values that behave alike share a unit.
    select          a head whose score counts the conditions that hold: the selector is brought into the form
                    (a or b) and (c or d) ..., each bracket is a table over the values of keys and queries, and the
                    tables are the products of queries and keys. All conditions hold, or the score is lower by one;
                    the slot BOS scores half a point below all, so attention rests there when nothing is selected.
    aggregate       what the head brings. A value that cannot be averaged travels as its category; a mean of numbers as
                    one *number*, which steps of the next feed-forward map turn into a category again. BOS brings the default.

The slot BOS sees only itself, so its residual is known when weights are made; every map into a head or a hidden unit has
a weight on its flag that makes it what it should be there.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from papertrial.papers.rasp.analysis import (
    NEVER,
    array_of,
    between,
    clauses_of,
    codes_of,
    distinct,
    filled,
    leaves,
    merged,
    ordered,
    sides_of,
)  # fmt: skip
from papertrial.papers.rasp.compiled import Compiled
from papertrial.papers.rasp.graph import Atom, Node
from papertrial.papers.rasp.layers import plan
from papertrial.papers.rasp.network import BOS, SPECIALS, LayerShape, Shape, Transformer
from papertrial.papers.rasp.run import Run, column, compare
from papertrial.papers.rasp.syntax import RaspError
from papertrial.papers.rasp.weights import FLAG, HERE, Head, Unit, fill, write_attention, write_feed_forward

_SMALL = 2048  # combinations up to which a chain of maps becomes one table without a search for a better one
_LARGEST = 1 << 29  # weights: 2 GiB


@dataclass(frozen=True)
class Category:
    """One line for each value from `start` on. soft: 0 and 1 only nearly.  place: (layer, map) after which it is there."""

    start: int
    values: tuple[Atom, ...]
    place: tuple[int, int]
    soft: bool = False

    @property
    def lines(self) -> range:
        return range(self.start, self.start + len(self.values))


@dataclass(frozen=True)
class Number:
    """A mean on one line, and the values it can have, sorted."""

    line: int
    values: tuple[float, ...]
    place: tuple[int, int]


def compile_program(node: Node, vocabulary: Sequence[Atom], longest: int, sharpness: float, limit: int) -> Compiled:
    """The transformer that computes an s-op on inputs of up to `longest` tokens of `vocabulary`.

    sharpness: of the softmax, a condition that fails costs that much.  limit: most values of one s-op; a table has up to
    16 times as many combinations.  Raises RaspError, with the place in the program, for what does not compile: s-ops with
    more values (means of many numbers), means too close to tell apart in float32, selectors that compare too much at once.
    """
    try:
        return _Compiler(node, list(dict.fromkeys(vocabulary)), longest, sharpness, limit).compile()
    except RecursionError:
        raise RaspError("this program is nested too deeply to compile", node.where) from None


class _Compiler:
    def __init__(self, node: Node, vocabulary: list[Atom], longest: int, sharpness: float, limit: int) -> None:
        self.node, self.vocabulary, self.longest = node, vocabulary, longest
        self.sharpness, self.limit = sharpness, limit
        self.width = 2
        self.units: list[list[list[Unit]]] = [[] for _ in range(node.depth + 1)]
        self.embedding: dict[tuple[int, int], float] = {}  # (token, line)
        self.position: dict[tuple[int, int], float] = {}
        self.categories: dict[Node, Category] = {}
        self.cleaned: dict[Category, Category] = {}
        self.numbers: dict[Node, Number] = {}
        self.joint: dict[Hashable, Category] = {}
        self.chosen: dict[Node, tuple[tuple[Node, ...], float]] = {}
        self.domains: dict[Node, tuple[Atom, ...]] = {}

    def compile(self) -> Compiled:
        layers = []
        for number, selectors in enumerate(plan(self.node).selectors, 1):
            layers.append([self.head(selector, number) for selector in selectors])
        answer = self.clean(self.category(self.node))
        return self.assemble(layers, answer)

    def fresh(self, lines: int) -> int:
        self.width += lines
        return self.width - lines

    # what values an s-op can have

    def domain(self, node: Node) -> tuple[Atom, ...]:
        if node not in self.domains:
            try:
                found = self._domain(node)
            except (TypeError, ValueError, ArithmeticError) as error:
                raise RaspError(str(error), node.where) from None
            if len(found) > self.limit:
                raise RaspError(
                    f"this takes {len(found):,} values on inputs of up to {self.longest} tokens, more than the {self.limit:,} that compile",
                    node.where,
                    "compile for shorter inputs or fewer tokens, or round earlier",
                )
            self.domains[node] = found
        return self.domains[node]

    def _domain(self, node: Node) -> tuple[Atom, ...]:
        if node.kind == "constant":
            return (node.detail,)
        if node.kind == "input":
            if node.f == "indices":
                return tuple(range(self.longest))
            return distinct(Run([token])(node).tolist()[0] for token in self.vocabulary)
        if node.kind == "aggregate":
            values = self.domain(node.args[1])
            default = 0 if node.detail is None else node.detail
            if self.travels_whole(node):
                return distinct((*values, default))
            return self.means(values, default, node)
        frontier, _ = self.frontier(node)
        return distinct(value for value in self.table_of(node, frontier).ravel().tolist() if value is not NEVER)

    def travels_whole(self, node: Node) -> bool:
        """Whether an aggregate brings categories: of values without a mean, and where one position at most is selected."""
        values = self.domain(node.args[1])
        if any(isinstance(value, bool | str) for value in (*values, node.detail or 0)):
            return True
        return len(values) > 1 and any(self.selects_one(clause) for clause in clauses_of(node.args[0]))

    def selects_one(self, clause: frozenset[tuple[Node, bool]]) -> bool:
        """Whether it is `key == query` with a key that differs between any two positions."""
        ((atom, positive),) = clause if len(clause) == 1 else ((None, False),)
        if atom is None or not positive or atom.f != "==":
            return False
        key = atom.args[0]
        if {leaf.f for leaf in leaves(key)} != {"indices"}:
            return False
        values = self.table_of(key, tuple(leaves(key))).ravel().tolist()
        return len(set(values)) == self.longest

    def means(self, values: tuple[Atom, ...], default: Atom, node: Node) -> tuple[Atom, ...]:
        """All means of 1 .. longest values, and the default."""
        found: dict[Any, Any] = {value: value for value in (default, *values)}
        sums: set[Any] = {0}
        for count in range(1, self.longest + 1):
            many = len(sums) * len(values) > 256 * self.limit
            sums = set() if many else {total + value for total in sums for value in values}
            found.update({total / count: total / count for total in sums if total / count not in found})
            if many or len(found) > self.limit:
                raise RaspError(
                    f"the mean of {len(values)} different values takes more than {self.limit:,} values on {self.longest} tokens",
                    node.where,
                    "compile for shorter inputs, or aggregate an indicator",
                )
        ordered = sorted(found.values())
        size = max(1.0, *map(abs, ordered))
        kept = [ordered[0]]
        for value in ordered[1:]:
            if value - kept[-1] > 1e-12 * size:  # the same mean, summed in another order
                kept.append(value)
        if any(after - before < 1e-5 * size for before, after in itertools.pairwise(kept)):
            raise RaspError(
                "two means of these values are too close to tell apart in float32", node.where, "round the values first"
            )
        return tuple(kept)

    # maps: from which s-ops a table is made

    def frontier(self, node: Node) -> tuple[tuple[Node, ...], float]:
        """The s-ops that the table of a map reads, and about how many units it and the tables below it take.

        An argument that is a map is either a table of its own or part of this one.
        """
        if node in self.chosen:
            return self.chosen[node]
        whole = tuple(leaves(node))
        if self.combinations(whole) <= _SMALL:
            self.chosen[node] = whole, float(self.combinations(whole))
            return self.chosen[node]
        best: tuple[tuple[Node, ...], float] | None = None
        maps = [arg for arg in dict.fromkeys(node.args) if arg.kind == "map"]
        for kept in itertools.product((True, False), repeat=len(maps)):
            alone = {arg for arg, keep in zip(maps, kept, strict=True) if keep}
            reads = tuple(
                dict.fromkeys(leaf for arg in node.args for leaf in ((arg,) if arg in alone else leaves(arg)))
            )
            try:
                combinations = self.combinations(reads)
                below = sum(self.frontier(arg)[1] for arg in alone)
            except RaspError:  # an argument with too many values to be a table of its own
                continue
            if combinations > 16 * self.limit:
                continue
            number = self.number_among(reads)
            steps = min(len(self.domain(number)), 64) / len(self.domain(number)) if number else 1.0
            if best is None or combinations * steps + below < best[1]:
                best = reads, combinations * steps + below
        if best is None:
            raise RaspError(
                f"this combines {' x '.join(f'{len(self.domain(leaf)):,}' for leaf in whole)} values, too many for a table",
                node.where,
                "compile for shorter inputs or fewer tokens, or round earlier",
            )
        self.chosen[node] = best
        return best

    def combinations(self, reads: tuple[Node, ...]) -> int:
        return math.prod(len(self.domain(leaf)) for leaf in reads)

    def number_among(self, reads: tuple[Node, ...]) -> Node | None:
        """The s-op among those a table reads that it takes as a number: the mean with the most values."""
        means = [leaf for leaf in reads if leaf.kind == "aggregate" and not self.travels_whole(leaf)]
        return max(means, key=lambda leaf: len(self.domain(leaf)), default=None)

    def table_of(self, node: Node, reads: tuple[Node, ...]) -> np.ndarray:
        """The values of a map for all combinations of what it reads, one axis each; NEVER where it fails."""
        table = np.empty([len(self.domain(leaf)) for leaf in reads], object)
        steps = between(node, reads)
        failure: Exception | None = None
        for place, values in zip(np.ndindex(table.shape), itertools.product(*map(self.domain, reads)), strict=True):
            known: dict[Node, Any] = dict(zip(reads, values, strict=True))
            try:
                for step in steps:
                    known[step] = step.function(
                        *(arg.detail if arg.kind == "constant" else known[arg] for arg in step.args)
                    )
                table[place] = known[node]
            except (RaspError, TypeError, ValueError, ArithmeticError) as error:
                table[place], failure = NEVER, error
        if failure is not None and all(value is NEVER for value in table.ravel()):
            raise RaspError(str(failure), node.where)
        return table

    # categories

    def category(self, node: Node) -> Category:
        """The lines of an s-op, made when they are first asked for."""
        if node not in self.categories:
            self.categories[node] = self._category(node)
        return self.categories[node]

    def _category(self, node: Node) -> Category:
        if node.kind == "constant":
            return Category(HERE, (node.detail,), (0, -1))
        if node.kind == "input":
            values = self.domain(node)
            made = Category(self.fresh(len(values)), values, (0, -1))
            if node.f == "indices":
                self.position.update({(1 + place, line): 1.0 for place, line in enumerate(made.lines)})
            else:
                for place, token in enumerate(self.vocabulary):
                    value = Run([token])(node).tolist()[0]
                    self.embedding[SPECIALS + place, made.start + values.index(value)] = 1.0
            return made
        if node.kind == "aggregate":  # those that travel whole are made by their head
            return self.steps(array_of(self.domain(node)), self.domain(node), [], self.numbers[node])
        reads, _ = self.frontier(node)
        number = self.number_among(reads)
        table = self.table_of(node, reads)
        if number is None:
            return self.units_of(table, self.domain(node), [self.category(leaf) for leaf in reads])
        table = np.moveaxis(table, reads.index(number), -1)
        others = [self.clean(self.category(leaf)) for leaf in reads if leaf is not number]
        return self.steps(table, self.domain(node), others, self.numbers[number])

    def clean(self, category: Category) -> Category:
        """The same category with 0 and 1 exactly."""
        if not category.soft:
            return category
        if category not in self.cleaned:
            self.cleaned[category] = self.units_of(array_of(category.values), category.values, [category])
        return self.cleaned[category]

    def units_of(self, table: np.ndarray, values: tuple[Atom, ...], reads: list[Category]) -> Category:
        """A table as hidden units: one for each combination of what is read, values that behave alike as one."""
        codes, groups = merged(codes_of(table, values), table.ndim)
        made = Category(self.fresh(len(values)), values, self.place_after(reads))
        soft = any(category.soft for category in reads)
        for combination in np.ndindex(codes.shape):
            if codes[combination] < 0:
                continue
            gate, count = _gate(reads, groups, combination)
            out = made.start + int(codes[combination])
            if soft:  # 0 and 1 come out exactly for inputs within a quarter of them
                gate = dict.fromkeys(gate, 2.0)
                self.emit(made.place, gate, 1.5 - 2.0 * count, {out: 1.0})
                self.emit(made.place, gate, 0.5 - 2.0 * count, {out: -1.0})
            else:
                self.emit(made.place, gate, 1.0 - count, {out: 1.0})
        return made

    def steps(self, table: np.ndarray, values: tuple[Atom, ...], reads: list[Category], number: Number) -> Category:
        """A table whose last axis is a number: for each combination of the others, a step where the value changes."""
        codes, groups = merged(filled(codes_of(table, values)), table.ndim - 1)
        made = Category(self.fresh(len(values)), values, self.place_after([*reads, number]), soft=True)
        for combination in np.ndindex(codes.shape[:-1]):
            row = codes[combination]
            if row[0] < 0:
                continue
            gate, count = _gate(reads, groups, combination)
            self.emit(made.place, gate, 1.0 - count, {made.start + int(row[0]): 1.0})
            for change in np.flatnonzero(np.diff(row)):
                below, above = number.values[change], number.values[change + 1]
                slope, middle = 2.0 / (above - below), (above + below) / 2.0
                shut = slope * (number.values[-1] - middle) + 1.0  # more than the number can bring against a gate
                weights = {number.line: slope, **dict.fromkeys(gate, shut)}
                old, new = made.start + int(row[change]), made.start + int(row[change + 1])
                for offset, sign in ((0.5, 1.0), (-0.5, -1.0)):
                    self.emit(made.place, weights, offset - slope * middle - shut * count, {old: -sign, new: sign})
        return made

    def place_after(self, reads: Sequence[Category | Number]) -> tuple[int, int]:
        layer = max((part.place[0] for part in reads), default=0)
        return layer, 1 + max((part.place[1] for part in reads if part.place[0] == layer), default=-1)

    def emit(self, place: tuple[int, int], weights: dict[int, float], bias: float, out: dict[int, float]) -> None:
        layer, step = place
        while len(self.units[layer]) <= step:
            self.units[layer].append([])
        self.units[layer][step].append(Unit(weights, bias, out))

    # heads

    def head(self, selector: Node, layer: int) -> Head:
        """A selector and all it brings in a layer. Row 0 of queries and keys is the pull of BOS."""
        head = Head()
        for matrix, queries, keys in self.conditions(selector):
            head.conditions += 1
            by_key = np.unique(matrix, axis=1).shape[1] <= np.unique(matrix, axis=0).shape[0]
            rows, which = np.unique(matrix.T if by_key else matrix, axis=0, return_inverse=True)
            chosen, other = (keys, queries) if by_key else (queries, keys)
            ours, theirs = (head.key, head.query) if by_key else (head.query, head.key)
            for row, group in enumerate(rows):
                if group.any():
                    ours.update(
                        {(head.width, chosen.start + int(place)): 1.0 for place in np.flatnonzero(which.ravel() == row)}
                    )
                    theirs.update({(head.width, other.start + int(place)): 1.0 for place in np.flatnonzero(group)})
                    head.width += 1
        head.query.update({(0, FLAG): 1.0, (0, HERE): 1.0})
        for node in self.node.steps():
            if node.kind == "aggregate" and node.args[0] is selector and node.depth == layer:
                self.bring(head, node, layer)
        return head

    def bring(self, head: Head, node: Node, layer: int) -> None:
        """Add to a head the values of one aggregate."""
        values, default = self.clean(self.category(node.args[1])), 0 if node.detail is None else node.detail
        domain, row = self.domain(node), len(head.out)
        if self.travels_whole(node):
            made = Category(self.fresh(len(domain)), domain, (layer, -1), soft=True)
            self.categories[node] = made
            head.value.update(
                {
                    (row + domain.index(value), line): 1.0
                    for value, line in zip(values.values, values.lines, strict=True)
                }
            )
            head.rest += [float(value == default) for value in domain]
            head.out += made.lines
        else:
            line = self.fresh(1)
            self.numbers[node] = Number(line, tuple(map(float, domain)), (layer, -1))
            head.value.update({(row, at): float(value) for value, at in zip(values.values, values.lines, strict=True)})
            head.rest.append(float(default))
            head.out.append(line)

    def conditions(self, selector: Node) -> list[tuple[np.ndarray, Category, Category]]:
        """What must hold for a pair to be selected: tables (queries, keys) over the values of two categories."""
        groups: list[tuple[set[Node], set[Node], list[frozenset[tuple[Node, bool]]]]] = []
        sides = [({*sides_of(clause, 0)}, {*sides_of(clause, 1)}, clause) for clause in clauses_of(selector)]
        for side in sorted(sides, key=lambda side: -len(side[0]) - len(side[1])):
            for group in groups:  # a condition on the same s-ops, or fewer, is part of the same table
                if side[0] <= group[0] and side[1] <= group[1]:
                    group[2].append(side[2])
                    break
            else:
                groups.append((side[0], side[1], [side[2]]))
        found = []
        for key_set, query_set, clauses in groups:
            keys, queries = ordered(key_set), ordered(query_set)
            matrix, key_classes, query_classes = self.truth(clauses, keys, queries, selector)
            if not matrix.all():
                matrix, lines = self.side(matrix, queries, query_classes, selector)
                turned, columns = self.side(matrix.T, keys, key_classes, selector)
                found.append((turned.T, lines, columns))
        return found

    def truth(
        self, clauses: list[frozenset[tuple[Node, bool]]], keys: list[Node], queries: list[Node], selector: Node
    ) -> tuple[np.ndarray, list[np.ndarray], list[np.ndarray]]:
        """Whether clauses hold, for the classes of values that they tell apart: (Q, K), and the class of each value."""
        atoms = ordered({atom for clause in clauses for atom, _ in clause})
        tables = {}
        for atom in atoms:
            columns = (column(list(self.domain(side))) for side in atom.args)
            try:
                tables[atom] = compare(atom.f, *columns)
            except TypeError as error:
                raise RaspError(str(error), atom.where) from None
        classes = {}
        for at, nodes in ((0, keys), (1, queries)):
            for node in nodes:
                views = [table.T if at == 0 else table for atom, table in tables.items() if atom.args[at] is node]
                classes[at, node] = np.unique(np.concatenate(views, axis=1), axis=0, return_inverse=True)[1].ravel()
        sizes = (
            [int(classes[1, node].max()) + 1 for node in queries],
            [int(classes[0, node].max()) + 1 for node in keys],
        )
        if max(map(math.prod, sizes)) > self.limit:
            raise RaspError(
                f"this selector compares {math.prod(sizes[0]):,} with {math.prod(sizes[1]):,} combinations of values, too many",
                selector.where,
                "compile for shorter inputs or fewer tokens",
            )
        held = np.ones((*sizes[0], *sizes[1]), bool)
        for clause in clauses:
            any_of = np.zeros_like(held)
            for atom, positive in clause:
                table = tables[atom] == positive
                for at, nodes in ((0, keys), (1, queries)):  # one row or column for each class
                    side = atom.args[at]
                    if side in nodes:
                        first = np.unique(classes[at, side], return_index=True)[1]
                        table = table[:, first] if at == 0 else table[first]
                shape = [1] * held.ndim
                for at, nodes, ahead in ((1, queries, 0), (0, keys, len(queries))):
                    if atom.args[at] in nodes:
                        shape[ahead + nodes.index(atom.args[at])] = table.shape[1 - at]
                any_of |= table.reshape(shape)
            held &= any_of
        flat = held.reshape(math.prod(sizes[0]), math.prod(sizes[1]))
        return flat, [classes[0, node] for node in keys], [classes[1, node] for node in queries]

    def side(
        self, matrix: np.ndarray, nodes: list[Node], classes: list[np.ndarray], selector: Node
    ) -> tuple[np.ndarray, Category]:
        """The category that the rows of a table stand for, and the table with a row for each of its values.

        Several s-ops become one category of the combinations that the table tells apart.
        """
        if not nodes:
            return matrix, Category(HERE, (1,), (0, -1))
        if len(nodes) == 1:
            return matrix[classes[0]], self.clean(self.category(nodes[0]))
        which = np.unique(matrix, axis=0, return_inverse=True)[1].ravel()
        sizes = [int(part.max()) + 1 for part in classes]
        table = which.reshape(sizes)[np.ix_(*classes)]
        order = {int(code): place for place, code in enumerate(dict.fromkeys(table.ravel().tolist()))}
        table = np.vectorize(order.__getitem__, otypes=[np.int64])(table)
        key = (tuple(nodes), table.tobytes())
        if key not in self.joint:
            self.joint[key] = self.units_of(
                table.astype(object), tuple(range(len(order))), [self.category(node) for node in nodes]
            )
        made = self.joint[key]
        rows = {order[int(code)]: matrix[place] for place, code in enumerate(which)}
        return np.array([rows[int(value)] for value in made.values]), made

    # weights

    def assemble(self, layers: list[list[Head]], answer: Category) -> Compiled:
        hidden = [tuple(len(units) for units in steps) for steps in self.units]
        shapes = tuple(
            LayerShape(len(heads), max(head.width for head in heads), max(len(head.out) for head in heads), widths)
            for heads, widths in zip(layers, hidden[1:], strict=True)
        )
        shape = Shape(len(self.vocabulary), self.longest, self.width, len(answer.values), hidden[0], shapes)
        with torch.device("meta"):
            model = Transformer(shape)
        weights = sum(weight.numel() for weight in model.parameters())
        if weights > _LARGEST:
            raise RaspError(
                f"the transformer would have {weights:,} weights, more than {_LARGEST:,}",
                self.node.where,
                "compile for shorter inputs or fewer tokens",
            )
        state = {name: np.zeros(tuple(weight.shape), np.float32) for name, weight in model.state_dict().items()}
        tokens, positions = state["tokens.weight"], state["positions.weight"]
        tokens[BOS, FLAG] = 1.0
        tokens[SPECIALS:, HERE] = 1.0
        fill(tokens, self.embedding)
        fill(positions, self.position)
        rest = np.zeros(self.width)  # the residual at BOS, which sees only itself
        rest[FLAG] = 1.0
        for step, units in enumerate(self.units[0]):
            write_feed_forward(state, f"before.{step}", units, rest)
        for number, (heads, layer) in enumerate(zip(layers, shapes, strict=True)):
            for place, head in enumerate(heads):
                write_attention(state, f"layers.{number}.attention", place, head, layer, rest, self.sharpness)
            for head in heads:
                rest[head.out] += head.rest
            for step, units in enumerate(self.units[number + 1]):
                write_feed_forward(state, f"layers.{number}.maps.{step}", units, rest)
        for place, line in enumerate(answer.lines):
            state["answers.weight"][place, line] = 1.0
        model.load_state_dict({name: torch.from_numpy(weight) for name, weight in state.items()}, assign=True)
        return Compiled(model.eval().requires_grad_(False), self.vocabulary, list(answer.values))


def _gate(
    reads: list[Category], groups: list[np.ndarray], combination: tuple[int, ...]
) -> tuple[dict[int, float], float]:
    """The lines of which `count` are 1 when a combination is there. What makes no difference is not asked for."""
    gate: dict[int, float] = {}
    count = 0
    for category, group, wanted in zip(reads, groups, combination, strict=True):
        if group.max() > 0:
            gate.update({category.start + int(place): 1.0 for place in np.flatnonzero(group == wanted)})
            count += 1
    return (gate, float(count)) if count else ({HERE: 1.0}, 1.0)
