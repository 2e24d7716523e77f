"""What things cost: one question a file, each asked by `python -m xai_demo bench`."""
