"""Many children, one store, virtual time: every history is one seed, replayed exactly."""
