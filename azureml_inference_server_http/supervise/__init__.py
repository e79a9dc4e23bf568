"""The supervisor and what it starts: which processes and threads there are, and their ends.
Importing this package does nothing.
"""
