"""Tests of the wire protocol: pure, without a service."""
