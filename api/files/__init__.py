"""Uploads and downloads of files, streamed: memory holds a chunk of each, whatever its size."""
