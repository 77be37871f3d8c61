"""Django's own corners, each on real replicas: once with our router, once with a naive one, for comparison."""
