"""Values and rules of read routing, as pure code.

The rules, which the other modules spell out:

1. A *pointer* is a WAL position that a reader must not read behind. Pointers merge by taking the later; merging never goes back.
2. One unit of work reads one host. What it wrote, it reads from the primary.
3. A replica may answer a bound read only if it proves, in the same message, that it has replayed the pointer.
4. What is not provably a read is a write.
5. Every answer is a `Decision`: an alias and the reason for it.

Nothing in here imports Django, does I/O, starts a thread or reads a clock: time is an argument (`now`, in seconds).
"""
