"""The entry point of ``azmlinfsrv``, of ``python -m azureml_inference_server_http`` and of
``amlserver.py``.

Sets the effect of Ctrl-C until the server handles signals itself. It does so before it imports
anything, because the imports take most of the time until then. ``launch/cli.py`` has the command
itself. Runs in the launcher.
"""

import signal


def run() -> None:
    """Serve with the options of the command line, then exit with its code."""
    # Ctrl-C during the start ends the process without a traceback. If SIGINT is ignored, as in a
    # background job of a shell script, it stays ignored.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    from azureml_inference_server_http.launch import cli

    cli.run()


if __name__ == "__main__":
    run()
