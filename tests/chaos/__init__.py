"""Mixed traffic against the real command while its processes are killed, stopped, replaced and
resized at random.

``campaign.py`` runs it, ``subjects.py`` says against which servers, ``polite.py`` and ``rude.py`` are
the clients, ``orders.py`` says what they ask and what is right, ``monkey.py`` does the harm,
``journal.py``, ``invariants.py`` and ``joint_calls.py`` find what was lost, ``report.py`` prints it.
The tests are short runs; ``python -m tests.chaos`` (``make chaos``) is a long one. A seed decides
what is sent and done; how the two meet is up to the machine.
"""
