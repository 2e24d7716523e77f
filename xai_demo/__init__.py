"""Explainable AI for lung sounds, chest X-rays and everyday sounds."""

__version__ = "0.1.0"
