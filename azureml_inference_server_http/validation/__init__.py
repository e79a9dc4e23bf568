"""``azmlinfsrv validate`` and ``azmlinfsrv replay``: check a scoring script before it is deployed.

``command.py`` and ``replay.py`` are what people type. ``session.py`` starts the server itself, with one worker and
without a port; ``probe.py`` watches that worker from inside and says what it saw; ``detection.py`` makes findings of
it; ``report.py`` writes them. ``findings.py`` is the table of all kinds.
"""
