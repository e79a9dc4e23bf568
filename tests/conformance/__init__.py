"""Conformance suite: the same cases run on the published server and on this one, and compared.

cases.py reads `cases/*.toml`; server.py starts one server; client.py sends one raw request;
normalise.py removes what may vary; compare.py finds differences and sets them against
`known_differences.toml`; report.py prints them and writes the compatibility page; runner.py ties
these together. Nothing here imports either server: both run as commands.
"""
