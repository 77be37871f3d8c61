"""Celery's side of the test site: the app, its tasks, and the worker processes that run them."""
