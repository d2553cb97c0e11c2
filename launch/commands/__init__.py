"""One module for each command of the command line, of the same name: what it checks, calls and prints."""
