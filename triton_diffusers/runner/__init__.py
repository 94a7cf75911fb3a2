"""The runner: claims jobs from the job table and has the Triton beside it run them."""
