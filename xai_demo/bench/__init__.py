"""What things cost in time and memory: one question a module, run by `python -m xai_demo bench`."""
