"""Tries other packages beside this one: `tox -e others`. Each has a journey, on Django's engine and on ours, and both must end alike."""
