"""Measures this server beside the published one and others, and writes docs/performance.md: see
README.md."""
