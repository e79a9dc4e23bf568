"""Which submodules of the standard library a script reaches through their package, having imported
only that.

NAMES are those that the published server has imported when it loads a script, on Python 3.11; run()
says which of them cannot be reached, and which more had been imported.
"""

import importlib
import sys

TEXT = """
asyncio.base_events asyncio.base_futures asyncio.base_subprocess asyncio.base_tasks asyncio.constants
asyncio.coroutines asyncio.events asyncio.exceptions asyncio.format_helpers asyncio.futures asyncio.locks
asyncio.log asyncio.mixins asyncio.protocols asyncio.queues asyncio.runners asyncio.selector_events
asyncio.sslproto asyncio.staggered asyncio.streams asyncio.subprocess asyncio.taskgroups asyncio.tasks
asyncio.threads asyncio.timeouts asyncio.transports asyncio.trsock asyncio.unix_events collections.abc
concurrent.futures email.base64mime email.charset email.contentmanager email.encoders email.errors
email.feedparser email.header email.headerregistry email.iterators email.message email.parser email.policy
email.quoprimime email.utils encodings.aliases encodings.idna encodings.utf_8 html.entities http.client
http.cookiejar http.cookies http.server importlib.abc importlib.machinery importlib.metadata importlib.readers
importlib.resources importlib.resources.abc importlib.resources.readers importlib.util json.decoder
json.encoder json.scanner logging.config logging.handlers os.path pyexpat.errors pyexpat.model typing.io
typing.re urllib.error urllib.parse urllib.request urllib.response xml.etree xml.etree.ElementPath
xml.etree.ElementTree xml.etree.cElementTree
"""
NAMES = TEXT.split()
# Codecs are imported when a file or a text needs them.
PARENTS = sys.stdlib_module_names - {"encodings"}
IMPORTED = [
    name
    for name in list(sys.modules)
    if "." in name and name.split(".")[0] in PARENTS and not any(part.startswith("_") for part in name.split("."))
]


def is_reached(name):
    first, *rest = name.split(".")
    found = importlib.import_module(first)
    for part in rest:
        if not hasattr(found, part):
            return False
        found = getattr(found, part)
    return True


def init():
    pass


def run(data):
    return {
        "not reached": [name for name in NAMES if not is_reached(name)],
        "not listed": sorted(set(IMPORTED) - set(NAMES)),
    }
