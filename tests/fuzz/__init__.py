"""Fuzzing of the running server: against Python's own ``json``, ``str`` and ``urllib``, and with
broken HTTP.

``subjects.py`` says what is compared, ``results.py``, ``documents.py`` and ``texts.py`` make the
inputs and know the right answers, ``campaign.py`` sends them and makes what differs smaller.
``http_grammar.py`` makes up bytes that are nearly HTTP, ``http_surface.py`` sends them and judges
what comes back. The tests are a short run of it; ``python -m tests.fuzz`` is a long one. What needs
no Python is fuzzed in ``fuzz/`` at the top of the repository.
"""
