"""The report: reads records, never models; writes a page, tables and figures that answer without other help."""

from . import audit as audit
from . import page as page
from . import tables as tables
