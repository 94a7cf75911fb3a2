"""Build compiled artifacts: download, export and compile, verify against the eager engine, measure, place, upload."""
