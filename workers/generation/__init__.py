"""The generation worker: process, job dispatch and the engine's thread."""
