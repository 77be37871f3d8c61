"""The one app of each journey's project: its models and URLs are the journey's."""
