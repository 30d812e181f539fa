"""HTTP features around the routes: dispatch, compression, cross-origin requests, API versions."""
