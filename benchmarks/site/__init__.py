"""A small site with users, posts and messages: the same pages, whoever balances its reads."""
