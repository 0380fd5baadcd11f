"""Tasks that papers of the reading list are for, and that are not built yet: what each will ask, and how it will judge.

A task that is built, in `tasks/` or in another package, takes the place of what is declared here under its name.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Declared:
    """kind: of the data.  asks: what a method is asked, and judged: by what, each within a sentence."""

    name: str
    kind: str
    asks: str
    judged: str

    def __str__(self) -> str:
        """In a sentence."""
        return f"{self.name} (not built yet) asks {self.asks}; it judges by {self.judged}. Data: {self.kind}"


DECLARED = (
    Declared(
        "audio_modelling",
        "audio",
        "to write a recording in few symbols, and to read it back from them",
        "the error of what is read back, at equal symbols a second",
    ),
    Declared(
        "causality",
        "table",
        "to predict where mechanisms have changed, what follows when a value is set, and what would have been",
        "the error on shifted rows, and that of interventions and counterfactuals whose answers are known",
    ),
    Declared(
        "goal_reaching",
        "environment",
        "to act until a goal is reached that training never showed",
        "the share of held-out goals that are reached, at equal steps of the environment",
    ),
    Declared(
        "image_text_retrieval",
        "images",
        "to find the caption of an image, and the image of a caption",
        "recall among the first 1, 5 and 10 of the test captions and images",
    ),
    Declared(
        "protein_structure",
        "proteins",
        "to place the atoms of a chain, given its sequence and its relatives",
        "TM-score and lDDT on chains of families that training never showed",
    ),
    Declared(
        "question_answering",
        "passages",
        "to answer questions from a collection of passages",
        "exact match with the answers people gave, and the share of questions whose passage is among the first found",
    ),
    Declared(
        "sequence_algorithms",
        "sequences",
        "to compute an algorithm, such as the parity or a sort, over a sequence of tokens",
        "the share of sequences answered without an error, also of lengths that training never showed",
    ),
    Declared(
        "video_classification",
        "video",
        "to name what happens in a clip",
        "accuracy on the test clips, of which those from one recording stay together",
    ),
)
