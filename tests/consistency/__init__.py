"""Proves the promises under faults: a load that keeps a history, faults in real servers, and a checker that reads the history.

`python -m tests.consistency` runs it; docs/consistency.md says how to read what it prints.
"""
