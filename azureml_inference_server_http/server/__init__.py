"""Modules whose dotted paths users know: exceptions, which logs and dashboards show
(``user_script``), and the in-process application for tests of scripts (``create_app``, ``entry``).
The server itself is in the parent package. Importing this package does nothing."""
