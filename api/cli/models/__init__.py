"""Model files on this machine: what `--model` names, packages, the Hugging Face cache, and what can run."""
