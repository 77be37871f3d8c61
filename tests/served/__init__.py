"""The site that gunicorn serves to the load tests: every user has a register that only grows."""
