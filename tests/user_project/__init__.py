"""A project that uses the package, with tests of its own: its replicas cannot be reached, and need not be."""
