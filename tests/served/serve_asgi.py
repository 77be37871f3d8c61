"""Runs uvicorn, for as long as whoever started it lives: `python -m tests.served.serve_asgi` and uvicorn's own arguments."""

from __future__ import annotations

import uvicorn

from tests.served.orphan import end_with_parent

if __name__ == "__main__":
    end_with_parent()
    uvicorn.main()
