"""Questions about methods: compare."""
