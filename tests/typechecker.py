"""The run-time checker of the tests: shapes and types of every call into normwise; an int is a float (PEP 484)."""

from beartype import BeartypeConf, beartype

checked = beartype(conf=BeartypeConf(is_pep484_tower=True))
