"""The user's script: loading it, calling it, and what it sees of the server. Importing this package
does nothing."""
