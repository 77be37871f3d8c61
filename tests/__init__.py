"""The tests of django-pglb, on real servers."""
