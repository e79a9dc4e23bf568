"""Where the command begins: ``azmlinfsrv``, ``python -m azureml_inference_server_http`` and ``amlserver.py``.

Owns what Ctrl-C does until the server obeys signals. That is decided before anything else is imported, as imports are
most of the time until then. The command itself is ``cli.py``. Runs in the launcher process.
"""

import signal


def run() -> None:
    """Serve with the options of the command line, then exit with its code."""
    # Ctrl-C during the start ends it without a traceback. Where it was ignored already (nohup), it stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    from azureml_inference_server_http import cli

    cli.run()


if __name__ == "__main__":
    run()
