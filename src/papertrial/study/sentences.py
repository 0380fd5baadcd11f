"""The words of a comparison: what is said of each method, what to do, and the notes that keep words from being misread."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from papertrial.core.budget import Budget, duration
from papertrial.core.stats import CANNOT_TELL, HELPS, Verdict
from papertrial.study.comparison import Comparison, Row
from papertrial.study.entrants import Entrant

_LATE = 1.5  # times a run's share of time from which it is said


def caution(words: Mapping[str, Verdict], looks: Sequence[int]) -> list[str]:
    """When a word is stricter than the interval beside it looks."""
    stricter = [
        name
        for name, verdict in words.items()
        if verdict.word == CANNOT_TELL and not verdict.reason and (verdict.low > 0 or verdict.high < 0)
    ]
    if not stricter:
        return []
    why = []
    if len(words) > 1:
        why.append(f"{len(words)} methods were tried at once (Holm)")
    if looks:
        why.append(f"it was judged before, with {', '.join(map(str, looks))} seeds")
    return [f"{', '.join(stricter)}: the interval excludes zero, but that is not enough yet, since {' and '.join(why)}"]


def late(rows: Sequence[Row], budget: Budget) -> list[str]:
    """Which methods took clearly longer than their equal share of time, so that the word is not taken for what it was."""
    given = budget.seconds
    if not given:
        return []
    slow = [row for row in rows if row.seconds is not None and row.seconds > _LATE * given]
    said = ", ".join(f"{row.name} {duration(row.seconds or 0.0)}" for row in slow)
    why = "the machine was busy, or one step or trial takes that long; a larger --budget is kept more closely"
    return [f"took longer than the {duration(given)} of a run: {said}; {why}"] if slow else []


def tuned(entrants: Sequence[Entrant], budget: Budget) -> list[str]:
    """Who tunes itself, which only a budget of seconds or trials limits, where the budget has neither."""
    if budget.seconds is not None or budget.trials is not None:
        return []
    able = (entrant for entrant in entrants if entrant.method.paper.kind == "estimator" and not entrant.stopped)
    return [entrant.name for entrant in able if any(outcome.meter.trials > 1 for outcome in entrant.outcomes)]


def unbound(entrants: Sequence[Entrant], budget: Budget) -> list[str]:
    names = tuned(entrants, budget)
    words = f"{', '.join(names)} tuned without a limit: {budget} do not limit tuning; a --budget in seconds limits all alike"
    return [words] if names else []


def verdict_words(result: Comparison, entrants: list[Entrant], unlimited: Collection[str]) -> list[str]:
    """unlimited: who spent more than the budget says, with whom nobody is at an equal one."""
    found = [
        verdict.sentence(
            name,
            result.reference,
            result.metric,
            higher_is_better=result.higher_is_better,
            budget="" if {name, result.reference} & {*unlimited} else result.budget,
            digits=result.digits,
        )
        for name, verdict in result.verdicts.items()
    ]
    found += [
        f"{entrant.name} failed on this data: {entrant.stopped.rstrip('.')}."
        for entrant in entrants
        if entrant.asked and entrant.stopped
    ]
    helping = [name for name, verdict in result.verdicts.items() if verdict.word == HELPS]
    if not helping:
        known = [e for e in entrants if not e.stopped and (not e.asked or e.name == result.reference)]
        best = max(known, key=lambda entrant: entrant.valid)
        aside = "" if best.name == result.reference else f", and {best.name} validates better"
        found.append(f"No method is shown to beat {result.reference}{aside}: use {best.name} here.")
    return found
