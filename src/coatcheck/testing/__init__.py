"""The promises as tests that you can run too: store contract, adapter journey, probe application, a clock to wind."""
