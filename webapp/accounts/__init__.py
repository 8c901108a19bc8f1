"""Accounts: passwords, sessions, API tokens, and the guard that puts a person behind each request."""
