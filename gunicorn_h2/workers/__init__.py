"""Gunicorn's surface: the worker classes and their settings."""
