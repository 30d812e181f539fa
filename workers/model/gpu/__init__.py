"""The Runner for CUDA: block tables on the device, graphs of decode steps, one launch ahead."""
