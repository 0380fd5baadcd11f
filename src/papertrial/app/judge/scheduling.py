"""Who gets what next: which unit goes to a rater, on which side each output stands, and until when.

The units with the fewest labels go first, from a place drawn for each rater anew; attention checks stand in between. What
somebody let lie past its deadline goes to someone else once nothing else is left. Every function works in the session of
its caller; the ones that change something expect the row of the study to be locked, so that a unit gets no more labels
than asked for, whoever asks at the same moment.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sql
from sqlmodel import Session, col, select

from papertrial.app.judge.tables import Assignment, Item, Judgement, Output, Picture, Rater, Remark, Study, Unit
from papertrial.core.errors import PapertrialError

_APART = 1_000_003  # of the draws of two raters
#: states of what a rater is through with
FINISHED = ("done", "refused")

_OPEN = (
    select(Assignment)
    .where(Assignment.rater_id == sql.bindparam("rater"), Assignment.state == "open")
    .order_by(col(Assignment.id))
    .limit(1)
)
LAST = (
    select(Assignment.id)
    .where(Assignment.rater_id == sql.bindparam("rater"), col(Assignment.state).in_(FINISHED))
    .order_by(col(Assignment.answered).desc(), col(Assignment.id).desc())
    .limit(1)
)
_COUNTS = (
    select(Assignment.state, Assignment.check, sql.func.count(Assignment.id))
    .where(Assignment.rater_id == sql.bindparam("rater"))
    .group_by(col(Assignment.state), col(Assignment.check))
)
_KEEP = sql.insert(Judgement)
_MINE = select(Assignment.id).where(
    Assignment.unit_id == Unit.id, Assignment.rater_id == sql.bindparam("rater"), Assignment.state != "lapsed"
)
_FREE = (
    select(Unit)
    .where(Unit.study_id == sql.bindparam("study"), ~col(Unit.check), ~_MINE.exists())
    .order_by(col(Unit.number))
    .limit(1)
)
_AHEAD = _FREE.where(Unit.taken == sql.bindparam("taken"), col(Unit.number) >= sql.bindparam("start"))
_BEHIND = _FREE.where(Unit.taken == sql.bindparam("taken"), col(Unit.number) < sql.bindparam("start"))


@dataclass(frozen=True)
class Shown:
    """An output as a rater sees it: a text, or the (width, height) of a picture, fetched by assignment and place."""

    text: str | None
    picture: tuple[int, int] | None


@dataclass(frozen=True)
class Work:
    """One assignment without a word about systems. outputs: one, or left and right."""

    assignment: int
    context: Mapping[str, str]
    picture: tuple[int, int] | None
    outputs: tuple[Shown, ...]


@dataclass(frozen=True)
class Desk:
    """Where a rater stands. state: work, ready (there is some to begin), finished, paused or closed.

    last: the assignment that undoing takes back.  more: beyond this rater's share, the study has units left.
    """

    state: str
    work: Work | None
    done: int
    total: int
    last: int | None
    more: bool


class Refused(PapertrialError):
    """What a rater asked for cannot be done; the page says why."""


class Schedule:
    """What a rater gets next, and what becomes of the answers. clock: seconds since 1970."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._checks: dict[int | None, list[int]] = {}

    def keep(self, session: Session, given: Assignment, values: Mapping[str, float], remark: str = "") -> None:
        """Keep the answers to an assignment, also to one that lapsed meanwhile."""
        now = self.clock()
        seconds = max(0.0, now - given.given)
        rows = [
            {"assignment_id": given.id, "question": question, "value": 1 - value if given.flipped else value}
            for question, value in values.items()
        ]
        session.connection().execute(_KEEP, [{**row, "at": now, "seconds": seconds} for row in rows])
        if given.state == "lapsed" and not given.check:
            session.get_one(Unit, given.unit_id).taken += 1
        self._finish(session, given, "done", remark)

    def refuse(self, session: Session, given: Assignment, why: str) -> None:
        """Keep why an assignment cannot be judged; its unit is free for another rater."""
        if given.state != "lapsed" and not given.check:
            session.get_one(Unit, given.unit_id).taken -= 1
        self._finish(session, given, "refused", why)

    def _finish(self, session: Session, given: Assignment, state: str, words: str) -> None:
        now = self.clock()
        if words:
            session.add(Remark(assignment_id=given.id or 0, text=words, judged=state == "done", at=now))
        given.state, given.answered = state, now
        session.flush()

    def take_back(self, session: Session, study: Study, rater: Rater, assignment_id: int) -> None:
        """Undo the answers to an assignment and put it on the desk again, if it is the rater's last one."""
        if session.exec(LAST, params={"rater": rater.id}).first() == assignment_id:
            last = session.get_one(Assignment, assignment_id)
            now = self.clock()
            for table in (Judgement, Remark):
                live = col(table.assignment_id) == assignment_id, col(table.undone).is_(None)
                session.exec(sql.update(table).where(*live).values(undone=now))
            if last.state == "refused" and not last.check:
                session.get_one(Unit, last.unit_id).taken += 1
            last.state, last.answered = "open", None
            last.given, last.deadline = now, now + 60 * study.minutes
            session.flush()

    def fill_desk(self, session: Session, study: Study, rater: Rater) -> Desk:
        """The desk, with something on it if there is anything to give."""
        counts = tally(session, rater)
        given = on_desk(session, rater)
        if given is None and study.state == "open":
            given = self._give(session, study, rater, counts)
        return self.desk(session, study, rater, counts, given)

    def _give(self, session: Session, study: Study, rater: Rater, counts: Tally) -> Assignment | None:
        """Put the next unit on the rater's desk; None where there is nothing to give."""
        given = None
        unit = self.next_unit(session, study, rater, counts)
        if unit is None:
            return None
        now = self.clock()
        if not unit.check and unit.taken >= study.labels:  # free only because someone let it lie
            late = select(Assignment).where(Assignment.unit_id == unit.id, *_late(study, now))
            lapse(session, session.exec(late).all())
        if counts.lapsed:  # it may be one that this rater let lie
            own = select(Assignment).where(Assignment.unit_id == unit.id, Assignment.rater_id == rater.id)
            given = session.exec(own).first()
        if given is None:
            flipped = unit.second is not None and _draw(rater, unit.id).random() < 0.5
            given = Assignment(
                study_id=study.id, unit_id=unit.id, rater_id=rater.id, check=unit.check, flipped=flipped, given=now,
                deadline=now,
            )  # fmt: skip
        given.state, given.given, given.deadline = "open", now, now + 60 * study.minutes
        unit.taken += 1
        session.add(given)
        session.flush()
        return given

    def next_unit(
        self, session: Session, study: Study, rater: Rater, counts: Tally, *, beyond: bool = False
    ) -> Unit | None:
        """The unit this rater would get now; None when the share is done (unless `beyond`) or nothing is left."""
        order = self._checks_of(session, study)
        if counts.checks < len(order) and counts.units >= _place(study, rater, counts.checks):
            random.Random(rater.seed).shuffle(order)
            return session.get_one(Unit, order[counts.checks])
        if counts.units >= rater.share and not beyond:
            return None
        start = _draw(rater, counts.units).randrange(max(study.units, 1))
        told = {"study": study.id, "rater": rater.id, "start": start}
        for taken in range(study.labels):  # the units with the fewest labels first, from a place drawn anew each time
            for free in (_AHEAD, _BEHIND):
                found = session.exec(free, params={**told, "taken": taken}).first()
                if found is not None:
                    return found
        late = select(Assignment.unit_id).where(*_late(study, self.clock()), ~col(Assignment.check))
        anew = _FREE.where(col(Unit.id).in_(late), col(Unit.taken) <= study.labels)
        return session.exec(anew, params=told).first()

    def desk(self, session: Session, study: Study, rater: Rater, counts: Tally, given: Assignment | None) -> Desk:
        """What the rater sees; changes nothing."""
        checks = len(self._checks_of(session, study))
        total = rater.share + sum(_place(study, rater, index) <= rater.share for index in range(checks))
        more, state, work = False, study.state, None
        if state != "closed" and given is not None:
            state, work = "work", _work(session, given)
        elif state == "open":
            state = "ready" if self.next_unit(session, study, rater, counts) is not None else "finished"
            more = state == "finished" and self.next_unit(session, study, rater, counts, beyond=True) is not None
        last = session.exec(LAST, params={"rater": rater.id}).first() if counts.done else None
        return Desk(state, work, counts.done, max(total, counts.done + (work is not None)), last, more)

    def _checks_of(self, session: Session, study: Study) -> list[int]:
        """Ids of the attention checks, which never change, as a list of the caller's own."""
        if study.id not in self._checks:
            found = select(Unit.id).where(Unit.study_id == study.id, Unit.check).order_by(col(Unit.number))
            self._checks[study.id] = list(session.exec(found))
        return list(self._checks[study.id])


def on_desk(session: Session, rater: Rater) -> Assignment | None:
    """What lies on the rater's desk: the oldest first, so that undone ones come before what was given since."""
    return session.exec(_OPEN, params={"rater": rater.id}).first()


@dataclass(frozen=True)
class Tally:
    """Assignments of a rater: done, units and checks that are or were on the desk, and what lapsed."""

    done: int
    units: int
    checks: int
    lapsed: int


def tally(session: Session, rater: Rater) -> Tally:
    """Count the rater's assignments."""
    rows = session.exec(_COUNTS, params={"rater": rater.id}).all()
    kept = [(check, count) for state, check, count in rows if state != "lapsed"]
    return Tally(
        done=sum(count for state, _, count in rows if state in FINISHED),
        units=sum(count for check, count in kept if not check),
        checks=sum(count for check, count in kept if check),
        lapsed=sum(count for state, _, count in rows if state == "lapsed"),
    )


def _late(study: Study, now: float) -> tuple[Any, ...]:
    return Assignment.study_id == study.id, Assignment.state == "open", col(Assignment.deadline) < now


def lapse(session: Session, assignments: Sequence[Assignment]) -> None:
    """Take back what was given out; its units are free for others."""
    for assignment in assignments:
        assignment.state = "lapsed"
        session.get_one(Unit, assignment.unit_id).taken -= 1
    session.flush()


def _draw(rater: Rater, index: int | None) -> random.Random:
    """The rater's own draws, the same ones whenever they are asked for."""
    return random.Random(rater.seed * _APART + (index or 0))


def _place(study: Study, rater: Rater, index: int) -> int:
    """After how many units the check stands: one at a drawn place in every stretch of `check_every` units."""
    return index * study.check_every + 1 + _draw(rater, index).randrange(study.check_every)


def sides(unit: Unit, given: Assignment) -> list[int]:
    """Ids of the outputs as they are shown: left and right, or the only one."""
    outputs = [unit.first] if unit.second is None else [unit.first, unit.second]
    return outputs[::-1] if given.flipped else outputs


def _work(session: Session, given: Assignment) -> Work:
    unit = session.get_one(Unit, given.unit_id)
    item = session.get_one(Item, unit.item_id)
    shown = sides(unit, given)
    found = {output.id: output for output in session.exec(select(Output).where(col(Output.id).in_(shown)))}
    outputs = [found[side] for side in shown]
    digests = {digest for digest in (item.picture, *(output.picture for output in outputs)) if digest}
    size = select(Picture.digest, Picture.width, Picture.height).where(col(Picture.digest).in_(digests))
    sizes = {digest: (width, height) for digest, width, height in session.exec(size)} if digests else {}
    seen = tuple(Shown(output.text, sizes.get(output.picture or "")) for output in outputs)
    return Work(given.id or 0, item.context, sizes.get(item.picture or ""), seen)
