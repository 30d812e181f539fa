"""Authentication of callers by API key, with throttling of failed logins."""
