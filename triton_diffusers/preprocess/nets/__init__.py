"""Small networks that no maintained package has, by the names of the tensors in their published files."""
