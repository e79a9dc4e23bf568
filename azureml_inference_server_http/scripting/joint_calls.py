"""Counts the joint calls that were of no use, and decides when no more are made (``--max_batch_size``,
``@batched``).

``batching`` makes the joint calls of a run() that is not async, ``api/batching.py`` those of an async function. Runs in
workers, and in tests of scripts.
"""

from __future__ import annotations

import logging

# Joint calls in a row of which no request gets an answer, before no more of them are made.
USELESS_CALLS = 5

_logger = logging.getLogger("azmlinfsrv")


class JointCalls:
    """What the joint calls of one function have come to. ``are_possible``: False once the script has proven that its
    calls cannot be joined. ``remedy``: what the log tells to do then."""

    def __init__(self, remedy: str) -> None:
        self.are_possible = True
        self._remedy = remedy
        self._useless = 0

    def count(self, requests: int) -> None:
        """A call for so many requests begins. Nothing counts them here; see ``batching.CountedCalls``."""

    def note_use(self) -> None:
        """A joint call has answered its requests."""
        self._useless = 0

    def note_failure(self, exc: BaseException, failed: int) -> None:
        """A joint call has raised ``exc``. Then ``failed`` of its requests failed alone."""
        if failed:
            self._useless = 0
        else:
            self.note_useless(
                f"run() failed for several requests, of which each succeeded alone: {type(exc).__name__}: {exc}"
            )

    def note_useless(self, reason: str) -> None:
        """A joint call has answered no request, and no request is known to be the cause. One alone ends
        nothing, because any client may cause one."""
        self._useless += 1
        if self._useless == USELESS_CALLS:
            self.give_up(
                f"{USELESS_CALLS} calls in a row for several requests were of no use. In the last one, {reason}"
            )
        else:
            _logger.debug("Each request of a joint call gets a call of its own: %s.", reason)

    def give_up(self, reason: str) -> None:
        """Tell the reason once, and make no more joint calls."""
        if self.are_possible:
            self.are_possible = False
            _logger.warning("Each request gets a call of its own from now on: %s. %s", reason, self._remedy)
