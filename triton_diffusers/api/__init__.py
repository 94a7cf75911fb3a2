"""The API: the contract of inputs and outputs, and requests decoded by it."""
