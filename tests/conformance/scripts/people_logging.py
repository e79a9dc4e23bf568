"""Logging set up the ways people do it: root helpers, a named logger with its own handler, prints,
exc_info."""

import json
import logging
import sys

logging.basicConfig(level=logging.INFO)
logger = logging.getLogger("my_app")
logger.setLevel(logging.DEBUG)
handler = logging.StreamHandler(sys.stderr)
handler.setFormatter(logging.Formatter("%(name)s|%(levelname)s|%(message)s"))
logger.addHandler(handler)
logger.propagate = False
logger.info("module loaded")


def init():
    logging.info("Init complete")
    logging.getLogger("azmlinfsrv").setLevel(logging.DEBUG)
    logger.debug("debug in init")


def run(raw_data, request_headers):
    logging.info("Request received")
    logger.info("id %s", request_headers.get("X-Ms-Client-Request-Id"))
    try:
        n = json.loads(raw_data)["n"]
        print("n is", n)
        return n + 1
    except TypeError:
        logger.error("cannot add", exc_info=True)
        logging.error("failed")
        raise
