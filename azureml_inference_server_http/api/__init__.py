"""Names for scoring scripts: ``api.aml_request`` and ``api.aml_response``.

Both modules need Flask, so a script imports the one it uses and nothing is imported here. The same
modules are reachable as ``azureml.contrib.services.*`` (see ``contrib_services``).
"""
