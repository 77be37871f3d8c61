"""Random programs of requests, jobs, threads and tasks that change how reads are routed, and what must be in force in them."""
