"""The guestbook as an API, once for each way to say who one is."""
