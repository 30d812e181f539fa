"""What every process may reach over the network: URL policy and name resolution."""
