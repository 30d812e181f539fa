"""Programs that use agent frameworks unmodified; `test_frameworks.py` runs them as processes of their own."""
