"""The decoder on a CPU in C++: compiled where a compiler is, left out where none is."""
