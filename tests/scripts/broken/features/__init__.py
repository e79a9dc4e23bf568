"""A folder beside the script, which the server does not import from."""
