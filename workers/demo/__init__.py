"""The small chat model that ships with the platform, and how it is made."""
