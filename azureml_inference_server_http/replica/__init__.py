"""One server as the replica of an engine that passes requests to it: what ``ray.py`` is made of, without Ray."""
