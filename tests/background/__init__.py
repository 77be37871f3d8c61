"""Tasks of Django's task framework, and a backend to run them, for the library that is there or for both."""
