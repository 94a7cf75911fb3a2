"""Small networks that no maintained package has, with the tensor names of their published files."""
