"""Home of names that logs and dashboards know by this dotted path; see ``user_script``.

Nothing else of the server lives here, and importing it does nothing.
"""
