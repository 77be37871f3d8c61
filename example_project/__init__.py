"""A guestbook on a primary, two replicas and Redis: watch who answers, then break something. `python -m example_project` starts it."""
