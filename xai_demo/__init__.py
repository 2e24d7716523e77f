"""Explainable AI for lung sounds, chest X-rays and everyday sounds: the answer, and its place."""

__version__ = "0.1.0"
