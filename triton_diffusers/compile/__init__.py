"""Building compiled artifacts: fetch, export and compile, verify against the eager engine, measure, place, upload."""
