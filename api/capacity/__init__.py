"""Queue statistics, throughput, start estimates and admission limits."""
