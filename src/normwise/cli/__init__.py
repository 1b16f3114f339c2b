"""The command line: it reads settings, calls one function, and says where the files are."""
