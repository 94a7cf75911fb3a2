"""The job board, through which processes of one server share their jobs' states."""
