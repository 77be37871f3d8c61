"""The application of that project."""
