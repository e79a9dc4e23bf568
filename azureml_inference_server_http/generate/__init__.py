"""``azmlinfsrv generate``: files that run a scoring script in a container, on a cluster or as a service.

Writes files, and does nothing else: no daemon, cluster or cloud is asked. ``facts.py`` gathers what the files say,
``templates/`` has their text.
"""
