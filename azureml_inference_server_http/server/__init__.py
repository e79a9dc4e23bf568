"""Home of names that others know by this dotted path: exceptions in logs and dashboards (``user_script``), and the
in-process application that tests of scripts use (``create_app``, ``entry``). The server itself lives one level up;
importing this package does nothing.
"""
