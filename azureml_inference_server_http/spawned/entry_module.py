"""The user's script, in a process that the script has started through multiprocessing's spawn or
forkserver method.

Such a process looks up the script's functions and classes in a module named ``entry_module``. In
workers the server makes that module; in such a process Python finds this file, because
``import_path`` puts its folder on ``sys.path``. Importing it replaces it by the script, without a
call of init().
"""

from azureml_inference_server_http.scripting import loading

loading.load_again()
