"""Explainable AI for lung sounds, chest X-rays and everyday sounds: what a network answers, and where it looked."""

__version__ = "0.1.0"
