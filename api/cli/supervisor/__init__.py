"""`tokenpost up`: starts the platform's processes, watches them and stops them."""
