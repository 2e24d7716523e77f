"""Training and evaluation; never loaded by the Space. The recipes are in `recipes`."""
