"""Mixed traffic against the real command while its processes are killed, stopped, replaced and
resized at random.

``campaign.py`` runs it, ``traffic.py`` and ``rude.py`` are the clients, ``orders.py`` says what
they ask and what is right, ``monkey.py`` does the harm, ``journal.py`` and ``invariants.py`` find
what was lost, ``report.py`` prints it. The tests are a short run; ``python -m tests.chaos`` (``make
chaos``) is a long one. A seed decides what is sent and done; how the two meet is up to the machine.
"""
