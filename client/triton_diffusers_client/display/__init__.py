"""Progress of a job on a terminal and in a notebook."""
