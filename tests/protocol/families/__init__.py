"""Tests of model families: parsers and grammars."""
