"""Which cases of a run a page lists: all, or of very many those that matter most."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

MOST = 20_000
"""Rows that a list holds; what is beyond them is in the tables only."""

State = Literal["flagged", "refused", "doubtful", "quiet"]
STATES: tuple[State, ...] = ("flagged", "refused", "doubtful", "quiet")
"""What is kept first comes first."""


@dataclass(frozen=True)
class Row:
    """One image, series or study in a list.

    Attributes:
        name: as in the tables.
        score: any real range; None where there is none.
        p_value: in (0, 1]; None where there is none.
        flag: whether it is flagged; None where nothing calibrated the model.
        doubts: what speaks against its being of the training images' kind, a sentence each.
        refusal: why it has no score; None where it has one.
        picture: path of its overlay below the page's folder, parts between slashes; None where
            none was written.
        note: more about it, in a few words.
        within: names of what it is part of, such as its series and its study.
        abnormal: what the labels say; None where there are none.
        kind: its class, such as ``glioma``; may be empty.
    """

    name: str
    score: float | None
    p_value: float | None = None
    flag: bool | None = False
    doubts: tuple[str, ...] = ()
    refusal: str | None = None
    picture: str | None = None
    note: str = ""
    within: tuple[str, ...] = ()
    abnormal: bool | None = None
    kind: str = ""

    @property
    def state(self) -> State:
        """The most telling thing about it."""
        if self.flag:
            return "flagged"
        if self.refusal is not None:
            return "refused"
        return "doubtful" if self.doubts else "quiet"


class Cases:
    """The rows of one list, of which no more than ``most`` are held at any time.

    Attributes:
        noun: what a row is: ``image``, ``series``, ``study``.
        counts: how many rows came, by :attr:`Row.state`.
        doubted: how many of them have doubts, whatever else they have.
    """

    def __init__(self, noun: str, most: int = MOST) -> None:
        self.noun = noun
        self.counts: Counter[State] = Counter()
        self.doubted = 0
        self._most = most
        self._heap: list[tuple[int, float, int, Row]] = []

    def add(self, row: Row) -> None:
        """Take one; where there are too many, the one that matters least goes."""
        state = row.state
        number = self.counts.total()
        self.counts[state] += 1
        self.doubted += bool(row.doubts)
        score = float("-inf") if row.score is None else row.score
        entry = (-STATES.index(state), score, -number, row)
        if len(self._heap) < self._most:
            heapq.heappush(self._heap, entry)
        else:
            heapq.heappushpop(self._heap, entry)

    @property
    def total(self) -> int:
        """How many rows came."""
        return self.counts.total()

    @property
    def rows(self) -> Sequence[Row]:
        """Those that are kept, in the order in which they came."""
        return [entry[3] for entry in sorted(self._heap, key=lambda entry: -entry[2])]

    def left_out(self) -> str | None:
        """Says what is in the tables only; None where everything is listed."""
        if len(self._heap) == self.total:
            return None
        kept = Counter(entry[3].state for entry in self._heap)
        whole = [state for state in STATES[:3] if kept[state] == self.counts[state]]
        words = f"This list holds {len(self._heap):,} of {self.total:,} rows: "
        if len(whole) == 3:
            words += "all that are flagged, refused or doubtful, and of the others those "
        else:
            part = next(state for state in STATES if state not in whole)
            words += f"{''.join(f'all that are {state}, ' for state in whole)}"
            words += f"{kept[part]:,} of {self.counts[part]:,} that are {part}, those "
        table = {"series": "series.csv", "study": "studies.csv"}.get(self.noun, "scores.csv")
        return f"{words}with the highest scores. The rest is only in {table}."
