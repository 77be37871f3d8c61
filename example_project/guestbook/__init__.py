"""The guestbook: people sign it, and each page says which host answered."""
