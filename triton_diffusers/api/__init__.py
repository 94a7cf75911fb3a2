"""What may be asked and what is answered: the contract, and requests decoded by it."""
