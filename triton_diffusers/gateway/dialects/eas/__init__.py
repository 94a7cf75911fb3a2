"""The protocol of PAI-EAS services: synchronous requests, and queues of asynchronous services."""
