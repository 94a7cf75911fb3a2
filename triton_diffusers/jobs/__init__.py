"""The jobs of a server, as other processes see them."""
