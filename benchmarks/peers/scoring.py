"""What every peer does with a script: load it, call ``init()``, call ``run()`` with the body,
render the result.

The script's path is in BENCH_SCRIPT. BENCH_CALL says how ``run()`` is called: with the body as
``text``, or with the ``parameters`` in its JSON object, which the script's schema converts. Runs in
the processes of the peers, so it uses nothing but the standard library.
"""

import importlib.util
import json
import os


def load():
    """The script as a module, after its ``init()``."""
    spec = importlib.util.spec_from_file_location("scoring_script", os.environ["BENCH_SCRIPT"])
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.init()
    return module


def answer(module, body):
    """The result for a request body, as a JSON text."""
    if os.environ.get("BENCH_CALL") == "parameters":
        return json.dumps(module.run(**json.loads(body)))
    return json.dumps(module.run(body.decode()))


async def awaited(module, body):
    """The same for a ``run()`` that is async."""
    return json.dumps(await module.run(body.decode()))
