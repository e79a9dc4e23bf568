"""``python -m azureml_inference_server_http``: the same as the ``azmlinfsrv`` command.

Owns nothing; see ``cli.py``. Runs in the launcher process.
"""

from azureml_inference_server_http.cli import run

if __name__ == "__main__":
    run()
