"""The gateway: jobs over HTTP."""
