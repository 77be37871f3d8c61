"""Optional integrations, each an app of its own for `INSTALLED_APPS`, with an extra of the same name."""
