"""The old name of the entry point, which existing launch configurations use.

Owns nothing; see ``__main__.py``. Both ``azureml_inference_server_http.amlserver:run`` and ``python
-m azureml_inference_server_http.amlserver`` (documented for VS Code) start the server. Runs in the
launcher.
"""

from azureml_inference_server_http.__main__ import run

__all__ = ["run"]

if __name__ == "__main__":
    run()
