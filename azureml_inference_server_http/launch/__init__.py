"""The launcher: from the command line and the settings to open listeners. Importing this package
does nothing."""
