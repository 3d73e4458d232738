"""Sources of features: where encoders, activation functions and directions come from."""
