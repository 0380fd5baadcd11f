"""A compiled program: the transformer with its vocabulary, written to a folder and read back, and compared with the interpreter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from papertrial.core.errors import PapertrialError
from papertrial.core.files import read_json, write_json, write_with
from papertrial.core.ours import filled
from papertrial.papers.rasp.graph import Atom, Node
from papertrial.papers.rasp.network import BOS, PAD, SPECIALS, LayerShape, Shape, Transformer
from papertrial.papers.rasp.run import Run
from papertrial.papers.rasp.syntax import RaspError

_FILES = ("model.safetensors", "config.json")


@dataclass(frozen=True)
class Compared:
    """strings: how many were tried.  compared, different: values of the program, one for each token."""

    strings: int
    compared: int
    different: int

    def sentence(self) -> str:
        equal = self.compared - self.different
        return f"{equal} of {self.compared} values on {self.strings} random strings are the interpreter's"


@dataclass
class Compiled:
    """A program as a transformer. vocabulary: its tokens.  values: what each answer means."""

    model: Transformer
    vocabulary: list[Atom]
    values: list[Atom]

    def encode(self, inputs: Sequence[Sequence[Atom]]) -> Tensor:
        """Ids (B, 1 + N) of strings or lists of tokens; raises RaspError for no input, an empty one, an unknown token or too
        long an input."""
        if not all(map(len, inputs)) or not len(inputs):
            raise RaspError("a transformer reads one input or more, each of one token or more", fix='such as ["abc"]')
        ids = {token: SPECIALS + place for place, token in enumerate(self.vocabulary)}
        longest = max(map(len, inputs))
        if longest > self.model.shape.longest:
            raise RaspError(f"an input has {longest} tokens and the transformer reads {self.model.shape.longest}")
        unknown = {token for row in inputs for token in row} - ids.keys()
        if unknown:
            raise RaspError(f"the transformer does not read {sorted(map(repr, unknown))[0]}")
        out = torch.full((len(inputs), 1 + longest), PAD)
        out[:, 0] = BOS
        for line, row in zip(out, inputs, strict=True):
            line[1 : 1 + len(row)] = torch.tensor([ids[token] for token in row])
        return out

    @torch.inference_mode()
    def __call__(self, inputs: Sequence[Sequence[Atom]]) -> list[list[Atom]]:
        """The program's values on each input, read off the transformer."""
        answers = self.model(self.encode(inputs)).argmax(-1).tolist()
        return [
            [self.values[answer] for answer in row[: len(tokens)]] for row, tokens in zip(answers, inputs, strict=True)
        ]

    def facts(self) -> dict[str, Any]:
        shape = self.model.shape
        return {
            "layers": len(shape.layers), "heads": max((layer.heads for layer in shape.layers), default=0),
            "width": shape.width, "longest": shape.longest,
            "parameters": sum(weight.numel() for weight in self.model.parameters()),
        }  # fmt: skip

    def save(self, folder: Path) -> None:
        """Write model.safetensors and config.json. Raises PapertrialError for a folder that holds anything else."""
        about = {"vocabulary": self.vocabulary, "values": self.values, "shape": asdict(self.model.shape)}
        with filled(folder, "compiled program", _FILES, _recognised):
            write_with(folder / "model.safetensors", lambda file: save_file(self.model.state_dict(), file))
            write_json(folder / "config.json", about)


def _recognised(folder: Path) -> list[str]:
    """What an earlier version wrote without a marker, if it can be read."""
    try:
        load(folder)
    except PapertrialError:
        return []
    return [*_FILES]


def load(folder: Path | str) -> Compiled:
    """Read what `Compiled.save` wrote; raises PapertrialError when it is not there or damaged."""
    config = read_json(Path(folder) / "config.json")
    try:
        shape = config["shape"]
        layers = tuple(LayerShape(**{**layer, "hidden": tuple(layer["hidden"])}) for layer in shape["layers"])
        model = Transformer(Shape(**{**shape, "before": tuple(shape["before"]), "layers": layers}))
        model.load_state_dict(load_file(Path(folder) / "model.safetensors"))
    except (OSError, KeyError, TypeError, RuntimeError) as error:
        raise PapertrialError(f"{folder} holds no compiled program ({error})", "compile it again") from None
    return Compiled(model.eval(), config["vocabulary"], config["values"])


def differences(
    compiled: Compiled, node: Node, strings: int, seed: int, first: Atom | None = None, batch: int = 32
) -> Compared:
    """Compare a transformer with the interpreter on random inputs of all lengths; inputs the program fails on are left out.

    first: a token that every input begins with, and that is nowhere else.
    """
    draw = np.random.default_rng(seed)
    letters = [token for token in compiled.vocabulary if token != first]
    inputs: list[list[Atom]] = []
    wanted: list[list[Atom]] = []
    for _ in range(strings):
        length = int(draw.integers(1, compiled.model.shape.longest + 1))
        tokens = [letters[place] for place in draw.integers(0, len(letters), length)]
        tokens = tokens if first is None else [first, *tokens[1:]]
        try:
            wanted.append(Run(tokens)(node).tolist())
        except RaspError:
            continue
        inputs.append(tokens)
    found = [row for start in range(0, len(inputs), batch) for row in compiled(inputs[start : start + batch])]
    pairs = [pair for rows in zip(wanted, found, strict=True) for pair in zip(*rows, strict=True)]
    return Compared(len(inputs), len(pairs), sum(not _same(*pair) for pair in pairs))


def _same(a: Atom, b: Atom) -> bool:
    return a == b or (isinstance(a, float) and isinstance(b, float) and math.isclose(a, b, rel_tol=1e-9))
