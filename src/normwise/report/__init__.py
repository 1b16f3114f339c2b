"""Reports: records in, one folder out. Nothing here knows a model."""
