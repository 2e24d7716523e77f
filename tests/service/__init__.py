"""Tests of what a server needs beyond the page."""
