"""What both servers send to Application Insights for the same requests, compared item by item.

``python tests/conformance/telemetry --reference … --candidate …`` runs it; ``make conform`` does. The differences that
are meant are in ``differences.toml``.
"""
