"""Differential fuzzing of the running server against Python's own ``json``, ``str`` and ``urllib``.

``subjects.py`` says what is compared, ``results.py``, ``documents.py`` and ``texts.py`` make the inputs and know the
right answers, ``campaign.py`` sends them and makes what differs smaller. The tests are a short run of it;
``python -m tests.fuzz`` is a long one. What needs no Python is fuzzed in ``fuzz/`` at the top of the repository.
"""
