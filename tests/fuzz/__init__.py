"""Fuzzing: mutated files given to every reader, which must read or refuse each of them in time."""
