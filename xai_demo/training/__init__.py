"""Training and evaluation, which the page never loads; the recipes are in `recipes`."""
