"""The tables of a study by people.

    study       its template, how many labels an item gets, when an assignment lapses
    item        what outputs are about: its name and the fields that are shown beside them
    output      what one system made of an item: a text or a picture
    unit        what is judged in one go: one output, or two of one item; an attention check has known answers
    rater       a name and the hash of an invitation's token
    assignment  a unit given to a rater, the side each output is shown on, and until when
    judgement   one answer to one question. Only ever added; undoing marks it
    remark      what a rater wrote beside the answers, or why there are none. Only ever added; undoing marks it

Tokens are 256 random bits and are kept as SHA-256 alone: who reads the database cannot enter with it. The tables have a
version: a database of an older papertrial is brought up to date when it is opened, one of a newer papertrial is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import sqlalchemy as sql
from sqlalchemy.orm import registry
from sqlmodel import Field, SQLModel

from papertrial.core.judgement import Question, Scale, Template

LARGEST_ID = 2**31 - 1  # of a PostgreSQL integer


class Table(SQLModel, registry=registry()):
    """Tables of papertrial's own, apart from those of other packages in the same process."""


class Study(Table, table=True):
    __tablename__ = "judge_study"
    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True)
    asked: dict[str, Any] = Field(sa_type=sql.JSON)  # the template
    state: str = "open"  # open, paused: nothing new is given out, closed: nothing is taken either
    labels: int  # of each unit
    units: int  # without the checks
    share: int  # units that one rater is asked for
    minutes: float  # until an assignment may go to someone else
    check_every: int  # units to one attention check
    token: str = Field(unique=True)  # hash of the administrator's
    seed: int
    created: float

    @property
    def template(self) -> Template:
        return _template(self.asked)


class Item(Table, table=True):
    __tablename__ = "judge_item"
    id: int | None = Field(default=None, primary_key=True)
    study_id: int = Field(foreign_key="judge_study.id", index=True)
    name: str
    context: dict[str, str] = Field(sa_type=sql.JSON)
    picture: str | None = None


class Output(Table, table=True):
    __tablename__ = "judge_output"
    id: int | None = Field(default=None, primary_key=True)
    item_id: int = Field(foreign_key="judge_item.id", index=True)
    system: str
    text: str | None = None
    picture: str | None = None


class Picture(Table, table=True):
    """A PNG by the SHA-256 of its bytes: no path leads to it."""

    __tablename__ = "judge_picture"
    digest: str = Field(primary_key=True)
    content: bytes
    width: int
    height: int


class Unit(Table, table=True):
    __tablename__ = "judge_unit"
    id: int | None = Field(default=None, primary_key=True)
    study_id: int = Field(foreign_key="judge_study.id")
    item_id: int = Field(foreign_key="judge_item.id")
    first: int = Field(foreign_key="judge_output.id")
    second: int | None = Field(default=None, foreign_key="judge_output.id")
    check: bool = False
    right: dict[str, list[float]] | None = Field(default=None, sa_type=sql.JSON)  # values that pass, by question
    number: int  # its place in the shuffled study
    taken: int = 0  # assignments that are open or done
    __table_args__ = (sql.Index("judge_unit_free", "study_id", "check", "taken", "number"),)


class Rater(Table, table=True):
    __tablename__ = "judge_rater"
    id: int | None = Field(default=None, primary_key=True)
    study_id: int = Field(foreign_key="judge_study.id")
    name: str
    token: str = Field(unique=True)  # hash
    seed: int
    share: int
    created: float
    revoked: float | None = None
    __table_args__ = (sql.UniqueConstraint("study_id", "name"),)


class Assignment(Table, table=True):
    __tablename__ = "judge_assignment"
    id: int | None = Field(default=None, primary_key=True)
    study_id: int = Field(foreign_key="judge_study.id")
    unit_id: int = Field(foreign_key="judge_unit.id")
    rater_id: int = Field(foreign_key="judge_rater.id", index=True)
    check: bool
    flipped: bool  # the second output stands on the left
    state: str = "open"  # open, done, refused: it could not be judged, lapsed
    given: float
    deadline: float
    answered: float | None = None
    __table_args__ = (
        sql.UniqueConstraint("unit_id", "rater_id"),
        sql.Index("judge_assignment_late", "study_id", "state", "deadline"),
    )


class Judgement(Table, table=True):
    __tablename__ = "judge_judgement"
    id: int | None = Field(default=None, primary_key=True)
    assignment_id: int = Field(foreign_key="judge_assignment.id")
    question: str
    value: float  # of the scale; of two outputs: 1 the unit's first, 0 its second, whichever side they stood on
    at: float
    seconds: float
    undone: float | None = None
    __table_args__ = (
        sql.Index(
            "judge_judgement_live",
            "assignment_id",
            "question",
            unique=True,
            sqlite_where=sql.text("undone IS NULL"),
            postgresql_where=sql.text("undone IS NULL"),
        ),
    )


class Remark(Table, table=True):
    __tablename__ = "judge_remark"
    id: int | None = Field(default=None, primary_key=True)
    assignment_id: int = Field(foreign_key="judge_assignment.id", index=True)
    text: str
    judged: bool  # False: the words say why the assignment was refused
    at: float
    undone: float | None = None


class Version(Table, table=True):
    """One row: the version of the tables."""

    __tablename__ = "judge_version"
    number: int = Field(primary_key=True)


def _count_versions(connection: sql.Connection) -> None:
    """The first tables told no version."""
    Table.metadata.tables["judge_version"].create(connection, checkfirst=True)


def _take_remarks(connection: sql.Connection) -> None:
    """Raters could not say anything beside their answers."""
    Table.metadata.tables["judge_remark"].create(connection, checkfirst=True)


#: what brings tables of version 0, 1, ... to the next one; whoever changes a table above adds a step
STEPS: tuple[Callable[[sql.Connection], None], ...] = (_count_versions, _take_remarks)
VERSION = len(STEPS)


def _template(kept: Mapping[str, Any]) -> Template:
    questions = [
        Question(row["name"], row["text"], Scale(tuple(row["scale"]["words"]), tuple(row["scale"]["values"])))
        for row in kept["questions"]
    ]
    told = (kept["guidelines"], kept["source"], kept.get("format", "text"))
    return Template(kept["name"], kept["kind"], tuple(questions), *told)
