"""What the benchmarks share: stores and workers to measure, figures, tables, charts, the report."""
