"""The application that the tests run."""
