"""Decides which answers of joint calls are compared with those of calls for each request alone, and
what the comparisons have proven (``--max_batch_size``).

Pure decisions. ``batching`` asks, ``src/worker/executor/batching.rs`` makes the calls. Runs in
workers. Reasons: docs/decisions/2026-11-30-batching.md; what the comparisons cannot find: docs/batching.md.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from enum import Enum
from typing import Any, NamedTuple

from . import rows

# Joint calls of each kind all of whose answers are compared with those of calls for each request alone.
CHECKED_CALLS = 2
# After that, one answer of one in so many joint calls is compared.
SAMPLED_CALLS = 50
# Kinds of calls that are remembered. A kind that is forgotten is checked again.
REMEMBERED = 1000


class Likeness(Enum):
    """What the requests of a joint call have in common."""

    EQUAL = "their inputs are equal"
    SAME_ROWS = "they have the same rows, in another number or order"
    DIFFERENT = "one has a row that another one does not have"


class OtherForm(rows.CannotSplit):
    """A result has another form than earlier results. The form is not part of the rows, so the request that has
    caused it cannot be known."""


class Check(NamedTuple):
    """Which answers of a joint call are compared, and what is proven if all of them agree."""

    places: list[int]
    kind: Hashable
    form: Hashable
    proves: frozenset[Hashable]


class Checks:
    """What one worker's comparisons have proven."""

    def __init__(self) -> None:
        self._agreed: Counter[Hashable] = Counter()
        self._forms: dict[Hashable, Hashable] = {}
        self._unchecked = 0
        # Not the module's generator, because the script may have seeded it.
        self._chance = random.Random()

    def of(self, kind: Hashable, counts: Sequence[int], inputs: Sequence[Sequence[Any]], result: Any) -> Check:
        """The check of a joint call of this kind. ``counts`` has the rows of each request, and ``inputs``
        its arrays and frames. Raises OtherForm if no request may get an answer of this call.

        Requests with one row are a kind of their own, because scripts often treat them differently.
        A comparison of requests that are equal proves nothing about other ones: data - data.mean() is then the same for
        all.
        """
        kind = digest(kind)
        form, of_rows = digest(rows.form_of_result(result)), digest(rows.forms_of_rows(result))
        if self._forms.get(kind, form) != form:
            raise OtherForm("the keys, columns, types or dimensions of the result depend on the values of the rows")
        keys = [(kind, form, of_rows, count == 1) for count in sorted({min(count, 2) for count in counts})]

        def are_proven(likeness: Likeness) -> bool:
            return all(self._agreed[key, likeness] >= CHECKED_CALLS for key in keys)

        if are_proven(Likeness.DIFFERENT):
            return self._sample(len(counts), kind, form)
        likeness = likeness_of(inputs)
        if likeness is Likeness.EQUAL and are_proven(likeness):
            return self._sample(len(counts), kind, form)
        proves = frozenset() if likeness is Likeness.SAME_ROWS else frozenset((key, likeness) for key in keys)
        return Check(list(range(len(counts))), kind, form, proves)

    def _sample(self, requests: int, kind: Hashable, form: Hashable) -> Check:
        """The check of a call whose kind has been proven."""
        self._unchecked += 1
        places = [self._chance.randrange(requests)] if self._unchecked % SAMPLED_CALLS == 0 else []
        return Check(places, kind, form, frozenset())

    def note_agreed(self, check: Check) -> None:
        """All compared answers of the call were the same."""
        if len(self._agreed) > REMEMBERED:
            self._agreed.clear()
            self._forms.clear()
        self._agreed.update(check.proves)
        self._forms.setdefault(check.kind, check.form)


def digest(value: Hashable) -> Hashable:
    """What equal values have in common, in a few bytes: clients choose the length of the values.

    The text tells 1 from True, and the hash tells types whose text leaves something out.
    """
    import hashlib  # imported here, because it loads OpenSSL, and most scripts have no batches

    return hash(value), hashlib.blake2b(repr(value).encode("utf-8", "backslashreplace"), digest_size=16).digest()


def likeness_of(inputs: Sequence[Sequence[Any]]) -> Likeness:
    """What requests with these arrays and frames have in common."""
    first, *others = [list(zip(*map(rows.contents, request))) for request in inputs]
    if all(other == first for other in others):
        return Likeness.EQUAL
    return Likeness.SAME_ROWS if all(set(other) == set(first) for other in others) else Likeness.DIFFERENT
