"""The interface to Gunicorn: the worker classes and their settings."""
