"""One module for each package, named after it: what it needs in the settings, and what is done with it.

`PACKAGE` is the distribution whose version is told. `APPS`, `MIDDLEWARE`, `MIDDLEWARE_ABOVE`, `CONTEXT_PROCESSORS` and `SETTINGS` go into
the project. `models()` and `urls()` are called when Django is ready for them, then `prepare()`; `STEPS` are run in order.
`remedy(settings)` sets what our documentation asks for, and `CHECK` is the id of the check that asks for it.
`IS_READ_FROM_PRIMARY`: with that nothing is read from replicas.
"""
